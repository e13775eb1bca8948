package alerts

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

// names returns the labels of each metric of the telemetry model, by the name that Prometheus gives it.
func names(t *testing.T) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(docs, "telemetry.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Metrics []struct {
			Name, Instrument, Unit string
			Attributes             []string
		}
	}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]otlptranslator.MetricType{
		"counter": otlptranslator.MetricTypeMonotonicCounter, "updowncounter": otlptranslator.MetricTypeNonMonotonicCounter,
		"gauge": otlptranslator.MetricTypeGauge, "histogram": otlptranslator.MetricTypeHistogram,
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	all := map[string][]string{}
	for _, m := range doc.Metrics {
		name, err := namer.Build(otlptranslator.Metric{Name: m.Name, Unit: m.Unit, Type: kinds[m.Instrument]})
		if err != nil {
			t.Fatal(err)
		}
		var set []string
		for _, a := range m.Attributes {
			set = append(set, strings.ReplaceAll(a, ".", "_"))
		}
		all[name] = set
		if m.Instrument == "histogram" {
			all[name+"_count"], all[name+"_sum"], all[name+"_bucket"] = set, set, append(slices.Clone(set), "le")
		}
	}
	return all
}

// holds checks the metrics and labels of an expression.
func holds(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var grouping, usable []string
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			set, ok := known[n.Name]
			if !ok {
				t.Errorf("%s: there is no metric %q", where, n.Name)
			}
			usable = append(usable, set...)
			for _, m := range n.LabelMatchers {
				if m.Name != labels.MetricName && !slices.Contains(set, m.Name) {
					t.Errorf("%s: %s has no label %q", where, n.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			grouping = append(grouping, n.Grouping...)
		}
		return nil
	})
	for _, l := range grouping {
		if !slices.Contains(usable, l) {
			t.Errorf("%s: no metric in it has the label %q", where, l)
		}
	}
}

// Every name and label in the alert rules is in the telemetry model.
func TestAlertNames(t *testing.T) {
	known := names(t)
	for _, r := range rules(t) {
		holds(t, r.Alert, r.Expr, known)
	}
}

// So is every one in the dashboard, which is sound and leaves no part of the library out.
func TestDashboard(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(docs, "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	type panel struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, RefID string }
	}
	var board struct {
		Title, UID    string
		SchemaVersion int
		Panels        []panel
	}
	if err := json.Unmarshal(data, &board); err != nil {
		t.Fatal(err)
	}
	known, ids, used := names(t), map[int]bool{}, map[string]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: want an id of its own, a title and a place", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, q := range p.Targets {
			expr := strings.ReplaceAll(q.Expr, "$__rate_interval", "5m")
			holds(t, "panel "+p.Title, expr, known)
			for name := range known {
				if strings.Contains(expr, name) {
					used[name] = true
				}
			}
		}
	}
	for _, name := range []string{"backstay_call_duration_seconds_bucket", "backstay_breaker_count", "backstay_budget_tokens", "backstay_saga_parked", "backstay_outbox_oldest_age_seconds"} {
		if !used[name] {
			t.Errorf("the dashboard does not show %s; it shows %q", name, slices.Sorted(maps.Keys(used)))
		}
	}
}
