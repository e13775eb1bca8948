package alerts

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric"
)

const scrapeEvery = 15 * time.Second

// world is what Prometheus has scraped from a program, in virtual time. It is a storage.Queryable.
type world struct {
	t          *testing.T
	begin, end time.Time
	series     map[string]*series
}

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// watch lets a program live for a while in a bubble, with an SDK and its Prometheus exporter, and scrapes it.
func watch(t *testing.T, last time.Duration, live func(context.Context)) *world {
	t.Helper()
	w := &world{t: t, series: map[string]*series{}}
	synctest.Test(t, func(t *testing.T) {
		registry := client.NewRegistry()
		exporter, err := prometheus.New(prometheus.WithRegisterer(registry))
		if err != nil {
			t.Fatal(err)
		}
		otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(exporter)))
		defer otel.SetMeterProvider(noop.NewMeterProvider())
		ctx, cancel := context.WithCancel(t.Context())
		w.begin = time.Now()
		done := make(chan struct{})
		go func() { defer close(done); live(ctx) }()
		for time.Since(w.begin) < last {
			time.Sleep(scrapeEvery)
			synctest.Wait()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			w.add(time.Now(), families)
		}
		w.end = time.Now()
		cancel()
		<-done
	})
	return w
}

func (w *world) add(at time.Time, families []*dto.MetricFamily) {
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case m.GetCounter() != nil:
				w.sample(f.GetName(), m, at, m.GetCounter().GetValue())
			case m.GetGauge() != nil:
				w.sample(f.GetName(), m, at, m.GetGauge().GetValue())
			case m.GetHistogram() != nil:
				w.sample(f.GetName()+"_count", m, at, float64(m.GetHistogram().GetSampleCount()))
				w.sample(f.GetName()+"_sum", m, at, m.GetHistogram().GetSampleSum())
			}
		}
	}
}

func (w *world) sample(name string, m *dto.Metric, at time.Time, v float64) {
	b := labels.NewScratchBuilder(8)
	b.Add(labels.MetricName, name)
	for _, l := range m.GetLabel() {
		b.Add(l.GetName(), l.GetValue())
	}
	b.Sort()
	set := b.Labels()
	key := set.String()
	if w.series[key] == nil {
		w.series[key] = &series{labels: set}
	}
	w.series[key].samples = append(w.series[key].samples, point{at.UnixMilli(), v})
}

// point is a sample.
type point struct {
	t int64
	f float64
}

func (p point) T() int64                      { return p.t }
func (p point) ST() int64                     { return 0 }
func (p point) F() float64                    { return p.f }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }

// Querier implements storage.Queryable.
func (w *world) Querier(mint, maxt int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		var found []storage.Series
		for _, s := range w.series {
			fits := true
			for _, m := range matchers {
				fits = fits && m.Matches(s.labels.Get(m.Name))
			}
			var in []chunks.Sample
			for _, p := range s.samples {
				if fits && p.T() >= mint && p.T() <= maxt {
					in = append(in, p)
				}
			}
			if len(in) > 0 {
				found = append(found, storage.NewListSeries(s.labels, in))
			}
		}
		return &seriesSet{found: found, at: -1}
	}}, nil
}

// seriesSet is what a query found.
type seriesSet struct {
	found []storage.Series
	at    int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.found) }
func (s *seriesSet) At() storage.Series                { return s.found[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
