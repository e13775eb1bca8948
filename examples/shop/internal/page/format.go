package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// formatDuration writes a duration with two or three digits that matter.
func formatDuration(d time.Duration) string {
	switch s := d.Seconds(); {
	case d == 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 9950*time.Microsecond:
		return trimFloat(s*1000, 1) + " ms"
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 9.95:
		return trimFloat(s, 1) + " s"
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s < 2*3600:
		return fmt.Sprintf("%d min %02d s", int(s)/60, int(s)%60)
	default:
		return fmt.Sprintf("%d h %02d min", int(s)/3600, int(s)/60%60)
	}
}

// formatRate writes a number of things a second.
func formatRate(f float64) string {
	if f < 9.95 {
		return trimFloat(f, 1)
	}
	return formatNumber(int(math.Round(f)))
}

func formatShare(f float64) string {
	switch p := f * 100; {
	case p == 0:
		return "0 %"
	case p < 0.1:
		return "< 0.1 %"
	case p < 9.95:
		return trimFloat(p, 1) + " %"
	case p > 99 && p < 100:
		return trimFloat(math.Floor(p*10)/10, 1) + " %" // 100 % is for all
	default:
		return fmt.Sprintf("%.0f %%", p)
	}
}

// formatNumber groups thousands by thin spaces.
func formatNumber(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// formatAgo says how long ago something was, in steps that do not change with every update.
func formatAgo(now, then time.Time) string {
	switch d := now.Sub(then); {
	case d < 5*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds())/5*5)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
}

// trimFloat writes a number with at most so many digits after the point.
func trimFloat(f float64, digits int) string {
	text := strconv.FormatFloat(f, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
