package telemetry

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// meter collects what is measured between its making and the end of the test. Make it before what it is to watch.
type meter struct {
	t      *testing.T
	reader *sdkmetric.ManualReader
}

func newMeter(t *testing.T) *meter {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	otel.SetMeterProvider(provider)
	m := &meter{t, reader}
	t.Cleanup(func() {
		otel.SetMeterProvider(noop.NewMeterProvider())
		_ = provider.Shutdown(context.Background())
	})
	return m
}

// noted is who else wants to know what was measured: TestModel, while it runs.
var noted *emitted

// point is one series of a metric.
type point struct {
	attrs map[string]string
	value float64 // of a sum or a gauge; of a histogram, its count
	sum   float64 // of a histogram
}

func (p point) String() string {
	var s strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p.attrs)) {
		fmt.Fprintf(&s, "%s=%s ", k, p.attrs[k])
	}
	return fmt.Sprintf("%s: %g", strings.TrimSpace(s.String()), p.value)
}

// raw returns all that has been measured.
func (m *meter) raw() metricdata.ResourceMetrics {
	m.t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &all); err != nil {
		m.t.Fatal(err)
	}
	if noted != nil {
		noted.note(m.t, all)
	}
	return all
}

// points returns the series of each metric of ours.
func (m *meter) points() map[string][]point {
	m.t.Helper()
	all := map[string][]point{}
	for _, scope := range m.raw().ScopeMetrics {
		if !strings.HasPrefix(scope.Scope.Name, "github.com/backstay-go/") {
			continue
		}
		for _, metric := range scope.Metrics {
			all[metric.Name] = append(all[metric.Name], pointsOf(m.t, metric.Data)...)
		}
	}
	return all
}

func pointsOf(t *testing.T, data metricdata.Aggregation) (all []point) {
	t.Helper()
	add := func(set attribute.Set, value, sum float64) {
		attrs := map[string]string{}
		for _, a := range set.ToSlice() {
			attrs[string(a.Key)] = a.Value.String()
		}
		all = append(all, point{attrs, value, sum})
	}
	switch d := data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, float64(p.Value), 0)
		}
	case metricdata.Sum[float64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, p.Value, 0)
		}
	case metricdata.Gauge[int64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, float64(p.Value), 0)
		}
	case metricdata.Gauge[float64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, p.Value, 0)
		}
	case metricdata.Histogram[int64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, float64(p.Count), float64(p.Sum))
		}
	case metricdata.Histogram[float64]:
		for _, p := range d.DataPoints {
			add(p.Attributes, float64(p.Count), p.Sum)
		}
	default:
		t.Fatalf("a metric of type %T", data)
	}
	return all
}

// value returns the sum of the series of a metric whose attributes include want, as "key=value" each, and whether there are any.
func (m *meter) value(name string, want ...string) (v float64, ok bool) {
	m.t.Helper()
	for _, p := range m.points()[name] {
		if p.has(want...) {
			v, ok = v+p.value, true
		}
	}
	return v, ok
}

func (p point) has(want ...string) bool {
	for _, w := range want {
		key, value, _ := strings.Cut(w, "=")
		if got, ok := p.attrs[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// want fails the test when the value of a metric is another.
func (m *meter) want(value float64, name string, attrs ...string) {
	m.t.Helper()
	if got, ok := m.value(name, attrs...); !ok || got != value {
		m.t.Errorf("%s %v: got %g (there: %v), want %g; it has %v", name, attrs, got, ok, value, m.points()[name])
	}
}

// collected waits until the garbage collector has taken what closes gone.
func collected(t *testing.T, gone <-chan struct{}) {
	t.Helper()
	for range 10 {
		runtime.GC()
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the pipeline is still there")
	}
}
