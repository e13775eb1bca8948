package page

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A chart is drawn in a box of these units and stretched to the width there is; its texts stand beside it, so they are not stretched.
const (
	chartWidth  = 600
	chartHeight = 120
	chartPoints = 120 // seconds
)

// chart is some series over the last two minutes.
type chart struct {
	Title  string // for who does not see it
	Ticks  []tick // the y axis, from the top
	Areas  []series
	Lines  []series
	Marks  []mark
	Points string // "offered,good,failed,p50,p99,age,depth;…" (milliseconds), for the script that shows them under the pointer
	End    time.Time
}

type tick struct {
	Y    float64
	Text string
}

type series struct{ Name, Path string }

// mark is an event worth a line in the chart.
type mark struct {
	X     float64
	Level string
	Text  string
}

// x returns where the i-th of n points stands; the newest is at the right.
func x(i, n int) float64 { return chartWidth * (1 - float64(n-1-i)/(chartPoints-1)) }

func coordinate(f float64) string { return trimFloat(f, 1) }

// line draws values from 0 to 1 (0 is the bottom); NaN interrupts it.
func line(values []float64) string {
	var b strings.Builder
	pen := "M"
	for i, v := range values {
		if math.IsNaN(v) {
			pen = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%s,%s", pen, coordinate(x(i, len(values))), coordinate(chartHeight*(1-v)))
		pen = "L"
	}
	return b.String()
}

// area fills what is between two lines.
func area(upper, lower []float64) string {
	if len(upper) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(line(upper))
	for i, v := range slices.Backward(lower) {
		fmt.Fprintf(&b, "L%s,%s", coordinate(x(i, len(lower))), coordinate(chartHeight*(1-v)))
	}
	b.WriteString("Z")
	return b.String()
}

// nice returns the smallest of 1, 2, 5, 10, 20, … that is not below f.
func nice(f float64) float64 {
	if f <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(f)))
	for _, m := range []float64{1, 2, 5, 10} {
		if f <= m*base*1.0001 {
			return m * base
		}
	}
	return 10 * base
}

// whole leaves out the last second, which is not over.
func whole(s Snapshot) []Point {
	points := s.Traffic
	if len(points) > 1 {
		points = points[:len(points)-1]
	}
	return points[max(0, len(points)-chartPoints):]
}

func newChart(s Snapshot) (chart, []Point) {
	points := whole(s)
	c := chart{End: s.At}
	if len(points) > 0 {
		c.End = points[len(points)-1].At
	}
	for _, e := range s.Events { // newest first
		if e.Level == "info" || c.End.Sub(e.At) > (chartPoints-1)*time.Second || e.At.After(c.End) || len(c.Marks) == 12 {
			continue
		}
		at := chartWidth * (1 - c.End.Sub(e.At).Seconds()/(chartPoints-1))
		m := mark{math.Round(at*10) / 10, e.Level, e.Text}
		if n := len(c.Marks); n > 0 && (c.Marks[n-1].Text == m.Text || c.Marks[n-1].X-m.X < 2*chartWidth/chartPoints) {
			c.Marks[n-1] = m // of what goes on, the beginning; of what happened together, the first
			continue
		}
		c.Marks = append(c.Marks, m)
	}
	return c, points
}

func rateChart(s Snapshot) chart {
	c, points := newChart(s)
	top := 5.0
	for _, p := range points {
		top = max(top, float64(p.Offered), float64(p.Good+p.Failed))
	}
	top = nice(top * 1.05)
	var offered, good, all, zero []float64
	var b strings.Builder
	for _, p := range points {
		offered = append(offered, float64(p.Offered)/top)
		good = append(good, float64(p.Good)/top)
		all = append(all, float64(p.Good+p.Failed)/top)
		zero = append(zero, 0)
		fmt.Fprintf(&b, "%d,%d,%d,%s,%s,%s,%d;", p.Offered, p.Good, p.Failed, millis(p.P50), millis(p.P99), millis(p.OutboxAge), p.OutboxDepth)
	}
	c.Points = strings.TrimSuffix(b.String(), ";")
	c.Areas = []series{{"good", area(good, zero)}, {"failed", area(all, good)}}
	c.Lines = []series{{"good", line(good)}, {"offered", line(offered)}}
	c.Ticks = linear(top, func(f float64) string { return trimFloat(f, 1) })
	f := recent(s.Traffic)
	c.Title = fmt.Sprintf("Orders a second over two minutes. Now %s offered, %s good, %s failed.", formatRate(f.Offered), formatRate(f.Good), formatRate(f.Failed))
	return c
}

func millis(d time.Duration) string { return trimFloat(float64(d)/1e6, 1) }

func linear(top float64, text func(float64) string) []tick {
	return []tick{{0, text(top)}, {chartHeight / 2, text(top / 2)}, {chartHeight, text(0)}}
}

// The latency is drawn on a fixed logarithmic scale, so that two pictures can be compared: from 1 ms to 10 s.
const (
	latencyBottom  = float64(time.Millisecond)
	latencyDecades = 4
)

func latencyChart(s Snapshot) chart {
	c, points := newChart(s)
	var p50, p99 []float64
	scale := func(d time.Duration) float64 {
		if d == 0 {
			return math.NaN() // nothing ended in that second
		}
		return min(1, max(0, math.Log10(float64(d)/latencyBottom)/latencyDecades))
	}
	for _, p := range points {
		p50, p99 = append(p50, scale(p.P50)), append(p99, scale(p.P99))
	}
	c.Lines = []series{{"p50", line(p50)}, {"p99", line(p99)}}
	for i, text := range []string{"10 s", "1 s", "100 ms", "10 ms", "1 ms"} {
		c.Ticks = append(c.Ticks, tick{float64(i) * chartHeight / latencyDecades, text})
	}
	f := recent(s.Traffic)
	c.Title = fmt.Sprintf("Time to the answer over two minutes, from 1 ms to 10 s, logarithmic. Now half within %s, 99 of 100 within %s.", formatDuration(f.P50), formatDuration(f.P99))
	return c
}

func lagChart(s Snapshot) chart {
	c, points := newChart(s)
	top := 5.0
	for _, p := range points {
		top = max(top, p.OutboxAge.Seconds())
	}
	top = nice(top)
	var age, zero []float64
	for _, p := range points {
		age, zero = append(age, p.OutboxAge.Seconds()/top), append(zero, 0)
	}
	c.Areas = []series{{"age", area(age, zero)}}
	c.Lines = []series{{"age", line(age)}}
	c.Ticks = linear(top, func(f float64) string { return trimFloat(f, 1) + " s" })
	c.Title = "Age of the oldest unpublished event over two minutes. Now " + formatDuration(s.Outbox.Oldest) + "."
	return c
}
