package telemetry

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.yaml.in/yaml/v3"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/telemetry"
	"github.com/backstay-go/backstay/timeout"
)

// model is docs/telemetry.yaml.
type model struct {
	Metrics    []modelMetric
	Attributes map[string]struct{ Values []string }
	Spans      []struct{ Name string }
}

type modelMetric struct {
	Name, Instrument, Unit, Description, Only string
	Attributes                                []string
}

func readModel(t *testing.T) model {
	t.Helper()
	data, err := os.ReadFile("../../docs/telemetry.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var m model
	if err := yaml.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// emission is what has been emitted of a metric.
type emission struct {
	modelMetric
	values map[string]map[string]bool // of each attribute
}

// emitted collects what the meters of the tests have seen.
type emitted struct {
	mu sync.Mutex
	by map[string]*emission
}

// note takes in all that a meter has measured.
func (e *emitted) note(t *testing.T, all metricdata.ResourceMetrics) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, scope := range all.ScopeMetrics {
		if !strings.HasPrefix(scope.Scope.Name, "github.com/backstay-go/") {
			continue
		}
		for _, metric := range scope.Metrics {
			m := e.by[metric.Name]
			if m == nil {
				m = &emission{modelMetric{Name: metric.Name, Instrument: kindOf(metric.Data), Unit: metric.Unit, Description: metric.Description}, map[string]map[string]bool{}}
				e.by[metric.Name] = m
			}
			for _, p := range pointsOf(t, metric.Data) {
				for k, v := range p.attrs {
					if m.values[k] == nil {
						m.values[k] = map[string]bool{}
					}
					m.values[k][v] = true
				}
			}
		}
	}
}

func kindOf(data metricdata.Aggregation) string {
	sum := func(monotonic bool) string {
		if monotonic {
			return "counter"
		}
		return "updowncounter"
	}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		return sum(d.IsMonotonic)
	case metricdata.Sum[float64]:
		return sum(d.IsMonotonic)
	case metricdata.Gauge[int64], metricdata.Gauge[float64]:
		return "gauge"
	}
	return "histogram"
}

// TestRare emits what no other test does.
func TestRare(t *testing.T) {
	m := newMeter(t)
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		p := telemetry.Attach(backstay.Chain(timeout.NewWith(timeout.Config{Name: "hard", Limit: time.Second, Abandon: true})), telemetry.Config{})
		_ = backstay.Run(t.Context(), p, func(context.Context) error { <-late; return nil })
		m.want(1, "backstay.timeout.abandoned", "backstay.policy.name=hard")
		close(late)
		synctest.Wait()
		m.want(0, "backstay.timeout.abandoned", "backstay.policy.name=hard")
	})
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Name: "stale", Consecutive: 1, Spread: -1})
		p := telemetry.Attach(backstay.Chain(b), telemetry.Config{})
		_ = backstay.Run(t.Context(), p, func(context.Context) error { b.Trip(); return nil })
		m.want(1, "backstay.breaker.stale", "backstay.policy.name=stale")
	})
	synctest.Test(t, func(t *testing.T) {
		keyed := backstay.NewKeyed(backstay.KeyedConfig{Max: 1}, func(string) *breaker.Breaker { return breaker.New(breaker.Config{}) })
		p := telemetry.Attach(backstay.Chain(keyed), telemetry.Config{})
		call := func(key string, fn func(context.Context) error) {
			_ = backstay.Run(t.Context(), p, fn, backstay.WithKey(key), backstay.Named("load"))
		}
		nothing := func(context.Context) error { return nil }
		call("a", nothing)
		call("b", nothing)
		call("c", func(context.Context) error { call("d", nothing); return nil })
		m.want(2, "backstay.keys.evicted")
		m.want(1, "backstay.keys.unprotected", "backstay.call=load")
	})
	synctest.Test(t, func(t *testing.T) {
		store := troubled()
		d := placing(1)
		e, stop := running(t, store, registered(d))
		synctest.Wait()
		h, err := d.Start(t.Context(), e, "order", order{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Wait(t.Context(), h.ID); err != nil {
			t.Error(err)
		}
		m.want(1, "backstay.saga.store.retries")
		stop()
	})
}

// The model is what is emitted: every metric, its kind, unit, text and attributes, and no others.
func TestModel(t *testing.T) {
	all := &emitted{by: map[string]*emission{}}
	noted = all
	defer func() { noted = nil }()
	for name, story := range map[string]func(*testing.T){
		"http": TestHTTPMetrics, "failed": TestFailedCallMetrics, "policies": TestPolicyMetrics, "rpc": TestMendedRPC, "saga": TestSagaMetrics,
		"lease": TestSagaLeaseLost, "outbox": TestOutboxMetrics, "rare": TestRare,
	} {
		t.Run(name, story)
	}
	doc := readModel(t)
	seen := map[string]bool{}
	for _, want := range doc.Metrics {
		seen[want.Name] = true
		got := all.by[want.Name]
		if got == nil {
			if want.Only == "" {
				t.Errorf("%s: in the model and never emitted", want.Name)
			}
			continue
		}
		if got.Instrument != want.Instrument || got.Unit != want.Unit || got.Description != want.Description {
			t.Errorf("%s: emitted is %s in %q, %q; the model has %s in %q, %q", want.Name, got.Instrument, got.Unit, got.Description, want.Instrument, want.Unit, want.Description)
		}
		for attribute, values := range got.values {
			if !slices.Contains(want.Attributes, attribute) {
				t.Errorf("%s: the attribute %s is not in the model", want.Name, attribute)
			}
			known, ok := doc.Attributes[attribute]
			if !ok {
				t.Errorf("the attribute %s is not in the model", attribute)
			}
			for v := range values {
				if len(known.Values) > 0 && !slices.Contains(known.Values, v) {
					t.Errorf("%s: the attribute %s has the value %q, which is not in the model", want.Name, attribute, v)
				}
			}
		}
		for _, a := range want.Attributes {
			if _, ok := doc.Attributes[a]; !ok {
				t.Errorf("%s: the attribute %s is not described", want.Name, a)
			}
		}
	}
	for name := range all.by {
		if !seen[name] {
			t.Errorf("%s: emitted, and not in the model", name)
		}
	}
}
