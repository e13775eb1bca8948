package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/backstay-go/backstay/bench/lab/storm"
)

// lines are the strategies that a chart shows, and their colours (Okabe and Ito's, which the colour-blind can tell apart too).
var lines = []struct {
	name string
	c    color.RGBA
}{
	{"no retry", color.RGBA{0x77, 0x77, 0x77, 0xff}},
	{"failsafe-go retry", color.RGBA{0xd5, 0x5e, 0x00, 0xff}},
	{"go-retryablehttp", color.RGBA{0xcc, 0x79, 0xa7, 0xff}},
	{"grpc-go A6 + throttle 10/0.1", color.RGBA{0xe6, 0x9f, 0x00, 0xff}},
	{"failsafe-go adaptive + budget + breaker 5s", color.RGBA{0x56, 0xb4, 0xe9, 0xff}},
	{"4 resends at once", color.RGBA{0xd5, 0x5e, 0x00, 0xff}},
	{"backstay", color.RGBA{0x00, 0x72, 0xb2, 0xff}},
}

// draw writes three charts for each scenario with a fault: what was good, what was sent, and how long it took, over time.
func draw(dir string, jobs []job, results []storm.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	all := groups(jobs, results)
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j].scenario.String() == all[i].scenario.String() {
			j++
		}
		if !all[i].scenario.Refuse {
			for _, c := range []struct {
				file, title, unit string
				value             func(storm.Second) (float64, bool)
			}{
				{"goodput", "good answers", "calls a second", func(s storm.Second) (float64, bool) { return float64(s.Good), true }},
				{"attempts", "attempts at the server", "a second", func(s storm.Second) (float64, bool) { return float64(s.Attempts), true }},
				{"latency", "mean time of a good answer", "ms", func(s storm.Second) (float64, bool) {
					return float64(s.Took) / float64(max(s.Good, 1)) / float64(time.Millisecond), s.Good > 0
				}},
			} {
				name := fmt.Sprintf("%s-%.0f-%s.svg", strings.ReplaceAll(strings.ToLower(all[i].scenario.Name), " ", "-"), all[i].scenario.Rate, c.file)
				if err := chart(filepath.Join(dir, name), all[i:j], c.title, c.unit, c.value); err != nil {
					return err
				}
			}
		}
		i = j
	}
	return nil
}

func chart(path string, of []group, title, unit string, value func(storm.Second) (float64, bool)) error {
	s := of[0].scenario
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s: %s, %.0f calls/s (fault from %.0f to %.0f s)", s.Name, title, s.Rate, s.Fault[0].Seconds(), s.Fault[1].Seconds())
	p.X.Label.Text, p.Y.Label.Text = "s", unit
	p.X.Min, p.X.Max, p.Y.Min = 0, s.Run.Seconds(), 0
	p.Legend.Top = true
	p.BackgroundColor = color.White
	p.Add(plotter.NewGrid())
	for _, want := range lines {
		for _, g := range of {
			if g.strategy.Name != want.name {
				continue
			}
			points := make(plotter.XYs, 0, len(g.results[0]))
			for sec := range g.results[0] {
				var sum storm.Second // the mean over the seeds
				for _, r := range g.results {
					one := r.Sum(sec, sec+1)
					sum.Good, sum.Attempts, sum.Took = sum.Good+one.Good, sum.Attempts+one.Attempts, sum.Took+one.Took
				}
				if y, ok := value(sum); ok {
					if unit != "ms" {
						y /= float64(len(g.results))
					}
					points = append(points, plotter.XY{X: float64(sec), Y: y})
				}
			}
			if len(points) == 0 {
				continue
			}
			line, err := plotter.NewLine(points)
			if err != nil {
				return err
			}
			line.Color, line.Width = want.c, vg.Points(1.5)
			if want.name == "backstay" {
				line.Width = vg.Points(2.5)
			}
			p.Add(line)
			p.Legend.Add(want.name, line)
		}
	}
	p.Y.Max *= 1.75 // room for the legend
	return p.Save(20*vg.Centimeter, 9*vg.Centimeter, path)
}
