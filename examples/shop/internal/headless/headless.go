// Package headless runs the shop without hands: customers and chaos of a seed, for a while, with the books as judge.
package headless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/examples/shop/internal/books"
	"github.com/backstay-go/backstay/examples/shop/internal/desk"
	"github.com/backstay-go/backstay/examples/shop/internal/drill"
	"github.com/backstay-go/backstay/examples/shop/internal/gateway"
	"github.com/backstay-go/backstay/examples/shop/internal/load"
	"github.com/backstay-go/backstay/examples/shop/internal/service"
	"github.com/backstay-go/backstay/examples/shop/internal/supervisor"
)

// Config is what is run.
type Config struct {
	For        time.Duration
	Chaos      string // "random", a preset, or none
	Compare    bool   // for the caller: run twice
	Seed       uint64
	Processes  bool
	Protection bool
	Out        io.Writer
}

// Report is what came of it.
type Report struct {
	Load    load.Totals
	Books   books.State
	Faults  int
	Early   []Held // what processes held after 20 % of the time
	Late    []Held // and at its end
	Drained bool   // everything that was begun has ended
}

// Held is what the process of a service holds.
type Held struct {
	Service string
	service.Memory
}

// Goodput is the share of the orders offered that got a right answer in time.
func (r Report) Goodput() float64 {
	if r.Load.Offered == 0 {
		return 0
	}
	return float64(r.Load.Good) / float64(r.Load.Offered)
}

// run is one run.
type run struct {
	Config
	desk     *desk.Desk
	load     *load.Generator
	services *supervisor.Supervisor
	start    time.Time
	mu       sync.Mutex // of Out
}

// Run breaks and watches the shop, lets everything come to rest twice (after 20 % of the time and at the end, to see what is held then), and reports. The error says
// what is wrong with the books, if anything is.
func Run(ctx context.Context, cfg Config, d *desk.Desk, customers *load.Generator, services *supervisor.Supervisor) (Report, error) {
	r := &run{Config: cfg, desk: d, load: customers, services: services, start: time.Now()}
	rate := customers.Rate()
	r.say("seed %d, chaos %q, protection %v, %v, %g orders a second", cfg.Seed, cfg.Chaos, cfg.Protection, cfg.For, rate)
	random := &drill.Random{Plant: d.Plant(), Services: d.Breakable(), Kill: cfg.Processes, Log: r.say}
	var report Report

	faults := r.part(ctx, cfg.For/5, random, cfg.Seed)
	customers.SetRate(0)
	report.Drained = r.rest(ctx) && r.warm(ctx, rate)
	report.Early = r.held(ctx)
	customers.SetRate(rate)
	report.Faults = faults + r.part(ctx, cfg.For-cfg.For/5, random, cfg.Seed+1)
	customers.SetRate(0)
	report.Drained = r.rest(ctx) && r.warm(ctx, rate) && report.Drained
	report.Late = r.held(ctx)
	report.Load, report.Books = customers.Totals(), d.Books()
	r.print(report)
	return report, r.verdict(ctx, report)
}

// part lets a part of the time pass, with chaos.
func (r *run) part(ctx context.Context, d time.Duration, random *drill.Random, seed uint64) (faults int) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { r.progress(ctx) })
	switch preset, ok := drill.Find(r.Chaos); {
	case r.Chaos == "random":
		faults = random.Run(ctx, seed)
	case ok:
		faults = 1
		r.preset(ctx, preset, d)
	}
	<-ctx.Done()
	work.Wait()
	return faults
}

// preset switches a preset on for the middle half of a part.
func (r *run) preset(ctx context.Context, p drill.Preset, d time.Duration) {
	quarter := d / 4
	if !pause(ctx, quarter) {
		return
	}
	r.say("%s", p.Title)
	if err := r.desk.Preset(ctx, p.Name, true); err != nil {
		r.say("%s: %v", p.Title, err)
	}
	pause(ctx, 2*quarter)
	mend, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if err := r.desk.Preset(mend, p.Name, false); err != nil {
		r.say("%s off: %v", p.Title, err)
	}
}

// sayEvery is how often progress is told.
const sayEvery = 10 * time.Second

func (r *run) progress(ctx context.Context) {
	for pause(ctx, sayEvery) {
		t, b := r.load.Totals(), r.desk.Books()
		r.say("offered %d, good %d, failed %d, open %d, events on their way %d, violations %d", t.Offered, t.Good, t.Failed, b.Totals.Open, b.OnTheirWay, b.Violations)
	}
}

// restWithin bounds the wait for the last saga: an order that waits for its pivot is cancelled after a minute and a half.
const restWithin = 3 * time.Minute

// rest waits until all orders have closed, all events are handled, and the books have been compared to the end.
func (r *run) rest(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, restWithin)
	defer cancel()
	start := time.Now()
	for ctx.Err() == nil {
		if err := r.desk.Preset(ctx, "", false); err == nil {
			break
		}
		pause(ctx, 300*time.Millisecond) // a service that was killed a moment ago
	}
	asked := time.Now()
	for pause(ctx, 200*time.Millisecond) {
		b := r.desk.Books()
		t := b.Totals
		if b.At.Sub(asked) > 2*time.Second && t.Open == 0 && b.OnTheirWay == 0 && b.Compared == t.Closings && b.Told == t.Closings {
			r.say("at rest after %.1f s", time.Since(start).Seconds())
			return true
		}
	}
	b := r.desk.Books()
	r.say("not at rest after %.0f s: open %d, events on their way %d, compared %d and told %d of %d", time.Since(start).Seconds(), b.Totals.Open, b.OnTheirWay, b.Compared, b.Told, b.Totals.Closings)
	return false
}

// warm has customers come for a twentieth of the time, with nothing broken. What was started again a moment ago, a broker or a process, holds less than it will: both looks at the memory are
// to find it in use.
func (r *run) warm(ctx context.Context, rate float64) bool {
	r.load.SetRate(rate)
	pause(ctx, r.For/20)
	r.load.SetRate(0)
	return r.rest(ctx)
}

// settle is how long a process at rest keeps what it need not: idle connections for five seconds, the blocks of a stream that the NATS server has read for ten.
const settle = 12 * time.Second

// held looks at the memory of each process once.
func (r *run) held(ctx context.Context) []Held {
	pause(ctx, settle)
	var all []Held
	for _, s := range r.services.Status() {
		if !s.Process && s.Name != "gateway" {
			continue // in the gateway's process
		}
		h := Held{Service: s.Name}
		if err := r.services.Remote(s.Name).Get(ctx, "/memory", &h.Memory); err != nil {
			r.say("memory: %v", err)
			continue
		}
		all = append(all, h)
	}
	return all
}

func (r *run) print(rep Report) {
	l := rep.Load
	var b strings.Builder
	fmt.Fprintf(&b, "\noffered %d, good %d (%.1f %%), failed %d (%d of them unanswered after %v); good answers took p50 %v, p99 %v\n",
		l.Offered, l.Good, 100*rep.Goodput(), l.Failed, l.Late, gateway.Patience, l.P50.Round(time.Millisecond), l.P99.Round(time.Millisecond))
	fmt.Fprintf(&b, "faults injected: %d\n", rep.Faults)
	for _, c := range rep.Books.Checks {
		fmt.Fprintf(&b, "%-7s %s = %s\n", c.Name, c.Left, c.Right)
	}
	fmt.Fprintf(&b, "books: %d rounds without a fault, %d closings compared, %d violations\n", rep.Books.Passed, rep.Books.Compared, rep.Books.Violations)
	for _, f := range rep.Books.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	for _, l := range rep.Books.Logs {
		fmt.Fprintf(&b, "  the sagas of order %s:\n    %s\n", l.Order, strings.Join(l.Lines, "\n    "))
	}
	for _, late := range rep.Late {
		for _, early := range rep.Early {
			if early.Service != late.Service {
				continue
			}
			note := ""
			if early.PID != late.PID {
				note = " (another process by now)"
			}
			fmt.Fprintf(&b, "%-13s heap %.2f MB at 20 %%, %.2f MB at 100 %% (%+.1f %%); goroutines %d, %d%s\n", late.Service, mb(early.Heap), mb(late.Heap),
				100*(float64(late.Heap)/float64(early.Heap)-1), early.Goroutines, late.Goroutines, note)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprint(r.Out, b.String())
}

func mb(n uint64) float64 { return float64(n) / (1 << 20) }

func (r *run) verdict(ctx context.Context, rep Report) error {
	var errs []error
	if rep.Books.Violations > 0 {
		errs = append(errs, fmt.Errorf("the books do not balance: %d violations", rep.Books.Violations))
	}
	if !rep.Drained {
		errs = append(errs, errors.New("what was begun has not ended"))
	}
	if rep.Load.Offered > 0 && rep.Load.Good == 0 {
		errs = append(errs, errors.New("no order got a right answer"))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (r *run) say(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.Out, "%6.1f s  %s\n", time.Since(r.start).Seconds(), fmt.Sprintf(format, args...))
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
