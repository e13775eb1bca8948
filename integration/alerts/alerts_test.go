package alerts

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"github.com/backstay-go/backstay/telemetry"
)

const docs = "../../docs"

var errBoom = errors.New("boom")

// rules returns the alert rules, each with a runbook that is there.
func rules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(filepath.Join(docs, "alerts.yaml"), false, model.UTF8Validation, parser.NewParser(parser.Options{}), promslog.NewNopLogger())
	for _, err := range errs {
		t.Fatal(err)
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	for _, r := range all {
		if _, err := os.Stat(filepath.Join(docs, r.Annotations["runbook"])); err != nil || r.Annotations["runbook"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("%s: want a summary and a runbook that is there: %v", r.Alert, err)
		}
	}
	return all
}

// firing returns which alerts fire at some time, as Prometheus would have evaluated them every 15 s.
func firing(t *testing.T, all []rulefmt.Rule, w *world) []string {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{})})
	defer engine.Close()
	fired := map[string]bool{}
	for _, r := range all {
		since := map[uint64]time.Time{} // when the condition of a label set began to hold
		for at := w.begin; at.Before(w.end); at = at.Add(scrapeEvery) {
			q, err := engine.NewInstantQuery(context.Background(), w, nil, r.Expr, at)
			if err != nil {
				t.Fatalf("%s: %v", r.Alert, err)
			}
			got := q.Exec(context.Background())
			vector, err := got.Vector()
			if err != nil {
				t.Fatalf("%s: %v", r.Alert, err)
			}
			holds := map[uint64]time.Time{}
			for _, s := range vector {
				key := s.Metric.Hash()
				began, ok := since[key]
				if !ok {
					began = at
				}
				holds[key] = began
				if at.Sub(began) >= time.Duration(r.For) {
					fired[r.Alert] = true
				}
			}
			since = holds
			q.Close()
		}
	}
	return slices.Sorted(maps.Keys(fired))
}

// every calls f at once and then every d, until the context is over.
func every(ctx context.Context, d time.Duration, f func()) {
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

// calls makes a call through the policies again and again.
func calls(ctx context.Context, d time.Duration, err error, policies ...backstay.Policy) {
	p := telemetry.Attach(backstay.Chain(policies...), telemetry.Config{})
	every(ctx, d, func() {
		_ = backstay.Run(ctx, p, func(context.Context) error { return err }, backstay.Named("load"), backstay.WithKey("stock"))
	})
}

func placing(version int, err error) *saga.Definition[int] {
	return saga.Must(saga.Define("place-order", version, func(b *saga.Builder[int]) {
		saga.Step(b, "charge", func(*saga.Ctx, int) (int, error) { return 1, err }).Pivot()
	}))
}

// sagas runs an engine of version 1, and starts one saga of the definition.
func sagas(ctx context.Context, start *saga.Definition[int], with error) {
	store := sagamem.New()
	_, _ = start.Start(ctx, store, "order-1", 1)
	_ = saga.New(store, saga.Register(placing(1, with))).Run(ctx)
}

// publishing runs a relay whose publisher answers err, with a message every second.
func publishing(ctx context.Context, err error) {
	box := outboxmem.New()
	relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i := range batch {
			result[i] = err
		}
	}), outbox.RelayConfig{Name: "main", DrainTimeout: time.Second})
	go every(ctx, time.Second, func() { _ = box.Enqueue(ctx, outbox.Message{Topic: "t", Key: "k", Payload: []byte("p")}) })
	_ = relay.Run(ctx)
}

// Each alert fires when what it is for happens, no other does, and none when all is well.
func TestAlertsFire(t *testing.T) {
	all := rules(t)
	untested := map[string]bool{}
	for _, r := range all {
		untested[r.Alert] = true
	}
	for _, story := range []struct {
		want string // the alert; "": none
		last time.Duration
		live func(ctx context.Context)
	}{
		{"", 20 * time.Minute, func(ctx context.Context) {
			go calls(ctx, time.Second, nil, retry.New(retry.Config{}), bulkhead.New(bulkhead.Config{}), breaker.New(breaker.Config{}))
			go sagas(ctx, placing(1, nil), nil)
			publishing(ctx, nil)
		}},
		{"BackstayBreakerOpen", 5 * time.Minute, func(ctx context.Context) { calls(ctx, time.Second, errBoom, breaker.New(breaker.Config{})) }},
		{"BackstayRetryBudgetEmpty", 15 * time.Minute, func(ctx context.Context) {
			calls(ctx, time.Second, errBoom, retry.New(retry.Config{Budget: budget.New(budget.Config{})}))
		}},
		{"BackstayLimitFull", 15 * time.Minute, func(ctx context.Context) {
			full := bulkhead.New(bulkhead.Config{Name: "pool", Limit: 1})
			_ = full.Acquire(ctx)
			calls(ctx, time.Second, nil, full)
		}},
		{"BackstaySagaParked", 15 * time.Minute, func(ctx context.Context) { sagas(ctx, placing(1, nil), saga.Park(errBoom)) }},
		{"BackstaySagaUnclaimable", 30 * time.Minute, func(ctx context.Context) { sagas(ctx, placing(2, nil), nil) }},
		{"BackstayOutboxOld", 10 * time.Minute, func(ctx context.Context) { publishing(ctx, outbox.ErrUnavailable) }},
		{"BackstayOutboxDeadLetters", 15 * time.Minute, func(ctx context.Context) { publishing(ctx, outbox.Permanent(errBoom)) }},
	} {
		name, want := story.want, []string{story.want}
		if name == "" {
			name, want = "all well", nil
		}
		delete(untested, story.want)
		t.Run(name, func(t *testing.T) {
			if got := firing(t, all, watch(t, story.last, story.live)); !slices.Equal(got, want) {
				t.Errorf("firing: got %q, want %q", got, want)
			}
		})
	}
	for name := range untested {
		t.Errorf("%s: there is no story that makes it fire", name)
	}
}
