package page

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"
)

// parts are the pieces of the page that are updated each by itself; there is a template of each name.
var partNames = []string{"status", "controls", "traffic", "graph", "books", "calls", "outbox", "orders", "events", "faults", "about"}

// parse parses the embedded templates.
func parse() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"dur":     formatDuration,
		"rate":    formatRate,
		"share":   formatShare,
		"num":     formatNumber,
		"times":   func(f float64) string { return fmt.Sprintf("%.2f×", f) },
		"clock":   func(t time.Time) string { return t.Format("15:04:05") },
		"stamp":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") },
		"iso":     func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") },
		"ago":     formatAgo,
		"faults":  faults,
		"choices": choices,
		"icon":    healthIcon,
		"word":    healthWord,
		"plot": func(kind string, c chart) any {
			return struct {
				Kind  string
				Chart chart
			}{kind, c}
		},
		"health": func() []Health { return []Health{OK, Degraded, Down} },
		"bind":   func(s string) string { return strings.ReplaceAll(s, " €", "\u00a0€") },
		"fixed":  func(f float64) string { return trimFloat(f, 1) },
	}).ParseFS(templates, "templates/*.html"))
}

// view is what the parts' templates see.
type view struct {
	Snapshot
	Status  status
	Now     figures // over the last five seconds
	Rate    chart
	Latency chart
	Lag     chart
	Graph   graph
	Rows    []orderView
	Active  *Preset // the first active one
}

// render makes every part.
func (p *page) render() (Snapshot, string, map[string]template.HTML) {
	s := p.config.Snapshot()
	if s.At.IsZero() {
		s.At = time.Now()
	}
	v := newView(s)
	parts := make(map[string]template.HTML, len(partNames))
	for _, name := range partNames {
		var b bytes.Buffer
		if err := p.html.ExecuteTemplate(&b, name, v); err != nil {
			b.WriteString(template.HTMLEscapeString(err.Error()))
		}
		parts[name] = template.HTML(bytes.TrimSpace(b.Bytes()))
	}
	return s, v.Status.Title, parts
}

func newView(s Snapshot) view {
	v := view{Snapshot: s, Now: recent(s.Traffic), Graph: newGraph(s)}
	v.Status = newStatus(s)
	v.Rate, v.Latency, v.Lag = rateChart(s), latencyChart(s), lagChart(s)
	for _, o := range s.Orders {
		v.Rows = append(v.Rows, viewOrder(o, s.At))
	}
	for i := range s.Presets {
		if s.Presets[i].Active {
			v.Active = &s.Presets[i]
			break
		}
	}
	return v
}

// Count returns how many orders are in a state.
func (v view) Count(state string) int {
	for _, c := range v.States {
		if c.Name == state {
			return c.N
		}
	}
	return 0
}

// Undone returns how many orders were undone, or are about to be.
func (v view) Undone() int { return v.Count("cancelled") + v.Count("returning") + v.Count("returned") }

// Calm reports whether nothing is broken on purpose.
func (v view) Calm() bool {
	broken := v.Active != nil || !v.Outbox.BrokerUp || v.Outbox.Paused || !v.Protection
	for _, s := range v.Services {
		broken = broken || s.Chaos != Chaos{}
	}
	return !broken
}

// Newest returns the events to list.
func (v view) Newest() []Event { return v.Snapshot.Events[:min(len(v.Snapshot.Events), 40)] }

// figures is the traffic of the last few seconds.
type figures struct {
	Offered, Good, Failed float64 // a second
	GoodShare             float64
	P50, P99              time.Duration
}

func recent(points []Point) figures {
	if len(points) > 1 {
		points = points[:len(points)-1] // the last second is not over
	}
	points = points[max(0, len(points)-5):]
	var f figures
	if len(points) == 0 {
		return f
	}
	var p50, p99 []time.Duration
	for _, p := range points {
		f.Offered += float64(p.Offered)
		f.Good += float64(p.Good)
		f.Failed += float64(p.Failed)
		if p.P99 > 0 {
			p50, p99 = append(p50, p.P50), append(p99, p.P99)
		}
	}
	if f.Good+f.Failed > 0 {
		f.GoodShare = f.Good / (f.Good + f.Failed)
	}
	n := float64(len(points))
	f.Offered, f.Good, f.Failed = f.Offered/n, f.Good/n, f.Failed/n
	if len(p50) > 0 {
		slices.Sort(p50)
		f.P50, f.P99 = p50[len(p50)/2], slices.Max(p99)
	}
	return f
}

// status is the sentence on top. It names no figures, so that it is read out only when something changes.
type status struct {
	Health Health
	Title  string
	Head   string
	Rest   []string
}

func newStatus(s Snapshot) status {
	var bad, warn []string
	if !s.Books.Balanced && len(s.Books.Checks) > 0 {
		bad = append(bad, "the books do not balance")
	}
	if text := named(s.Services, Down); text != "" {
		bad = append(bad, text+" down")
	}
	if text := named(s.Services, Degraded); text != "" {
		warn = append(warn, text+" degraded")
	}
	for _, e := range s.Edges {
		switch e.Breaker {
		case "open":
			warn = append(warn, "calls from "+e.From+" to "+e.To+" fail fast")
		case "half-open":
			warn = append(warn, e.From+" tries "+e.To+" again")
		}
	}
	if !s.Outbox.BrokerUp {
		warn = append(warn, "the broker is down and events wait in the outbox")
	} else if s.Outbox.Paused {
		warn = append(warn, "the relay is paused and events wait in the outbox")
	} else if s.Outbox.Oldest > 5*time.Second {
		warn = append(warn, "the outbox is behind")
	}
	for _, c := range s.States {
		if c.Name == "needs a human" && c.N > 0 {
			warn = append(warn, "some orders need a human")
		}
	}
	if s.Outbox.Parked > 0 {
		warn = append(warn, "an event could not be handled and was parked")
	}
	if f := recent(s.Traffic); f.Good+f.Failed > 0 && f.GoodShare < 0.99 {
		warn = append(warn, "some customers get no good answer")
	}
	if !s.Protection {
		warn = append(warn, "protection is off")
	}
	all := slices.Concat(bad, warn)
	for i, text := range all {
		all[i] = capital(text) + "."
	}
	st := status{Health: OK, Head: "Everything works.", Title: "✓ the shop"}
	switch {
	case len(bad) > 0:
		st.Health, st.Title = Down, "✕ the shop"
	case len(warn) > 0:
		st.Health, st.Title = Degraded, "! the shop"
	}
	if len(all) > 0 {
		st.Head, st.Rest = all[0], all[1:]
	}
	return st
}

// named lists the services of a health, with the verb: "orders and payments are".
func named(services []Service, h Health) string {
	var names []string
	for _, s := range services {
		if s.Health == h {
			names = append(names, s.Name)
		}
	}
	switch n := len(names); n {
	case 0:
		return ""
	case 1:
		return names[0] + " is"
	default:
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1] + " are"
	}
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func healthIcon(h Health) string {
	switch h {
	case Down:
		return "bad"
	case Degraded:
		return "warn"
	default:
		return "ok"
	}
}

func healthWord(h Health) string {
	switch h {
	case Down:
		return "down"
	case Degraded:
		return "degraded"
	default:
		return "healthy"
	}
}

// faults says in words what is wrong on purpose.
func faults(c Chaos) string {
	var all []string
	add := func(on bool, text string) {
		if on {
			all = append(all, text)
		}
	}
	add(c.Down, "down")
	add(c.Hang, "hangs")
	add(c.Flap, "flaps")
	add(c.Errors > 0, "errors "+formatShare(c.Errors))
	add(c.Latency > 0, "+"+formatDuration(c.Latency))
	add(c.LoseReply > 0, "replies lost "+formatShare(c.LoseReply))
	return strings.Join(all, ", ")
}

// choice is an option of a select.
type choice struct {
	Value, Text string
	On          bool
}

// choices returns the options of a fault, with the value that is set if it is not among the usual ones.
func choices(kind string, c Chaos) []choice {
	var all []choice
	if kind == "latency" {
		values := []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}
		if !slices.Contains(values, c.Latency) {
			values = append(values, c.Latency)
			slices.Sort(values)
		}
		for _, d := range values {
			all = append(all, choice{d.String(), cmp.Or(map[bool]string{true: "none"}[d == 0], "+"+formatDuration(d)), d == c.Latency})
		}
		return all
	}
	set := c.Errors
	if kind == "loseReply" {
		set = c.LoseReply
	}
	values := []float64{0, 0.05, 0.1, 0.3, 0.5, 0.8, 1}
	if !slices.Contains(values, set) {
		values = append(values, set)
		slices.Sort(values)
	}
	for _, f := range values {
		all = append(all, choice{trimFloat(f, 4), cmp.Or(map[bool]string{true: "none"}[f == 0], formatShare(f)), f == set})
	}
	return all
}
