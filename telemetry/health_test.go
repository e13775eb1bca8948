package telemetry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/telemetry"
)

func page(t *testing.T, h *telemetry.Health) (int, telemetry.Report, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/health", nil))
	text := w.Body.String()
	var r telemetry.Report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return w.Code, r, text
}

// Open breakers, full limits and empty budgets are degraded, not dead.
func TestDegraded(t *testing.T) {
	b := breaker.New(breaker.Config{Name: "stock"})
	full := bulkhead.New(bulkhead.Config{Name: "pool", Limit: 1})
	tokens := budget.New(budget.Config{Start: 1})
	h := &telemetry.Health{}
	h.Watch("calls", backstay.Chain(retry.New(retry.Config{Budget: tokens}), full, b))
	h.Add("relay", func(context.Context) error { return nil })
	if code, r, _ := page(t, h); code != 200 || r.State != telemetry.OK || len(r.Parts) != 2 {
		t.Errorf("all well: got %d %v", code, r)
	}
	b.Trip()
	_ = full.Acquire(context.Background())
	tokens.Withdraw()
	code, r, text := page(t, h)
	if code != 200 || r.State != telemetry.Degraded || r.Parts[0].State != telemetry.Degraded || r.Parts[1].State != telemetry.OK {
		t.Errorf("got %d %v; want 200, degraded", code, r)
	}
	for _, want := range []string{`breaker \"stock\": open`, `bulkhead \"pool\": full, 1 of 1`, `retry budget \"\": empty`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page: %s is missing in %s", want, text)
		}
	}
	h.Add("sagas", func(context.Context) error { return telemetry.AsDegraded(errors.New("parked")) })
	if code, r, _ := page(t, h); code != 200 || r.Parts[2].State != telemetry.Degraded {
		t.Errorf("a check that is degraded: got %d %v", code, r)
	}
}

// A check that fails, hangs, panics or ends its goroutine has failed, and its text stays out of the page.
func TestFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, check := range map[string]func(context.Context) error{
			"fails":  func(context.Context) error { return errors.New("dial canary-dsn") },
			"hangs":  func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Hour); return nil },
			"panics": func(context.Context) error { panic("canary") },
			"leaves": func(context.Context) error { runtime.Goexit(); return nil },
		} {
			h := &telemetry.Health{}
			h.Add("relay", check)
			code, r, text := page(t, h)
			if code != http.StatusServiceUnavailable || r.State != telemetry.Failed || len(r.Parts[0].Details) != 1 || strings.Contains(text, "canary") {
				t.Errorf("a check that %s: got %d %s; want 503, failed, and a reason without the text", name, code, text)
			}
		}
		time.Sleep(2 * time.Hour) // the one that hung
	})
	h := &telemetry.Health{ShowErrors: true}
	h.Add("relay", func(context.Context) error { return errors.New("it has ended") })
	if _, _, text := page(t, h); !strings.Contains(text, "it has ended") {
		t.Errorf("with ShowErrors: got %s", text)
	}
}

// What is said of one part has a bound.
func TestManyBreakers(t *testing.T) {
	many := backstay.NewKeyed(backstay.KeyedConfig{}, func(key string) *breaker.Breaker {
		return breaker.New(breaker.Config{Name: key, Mode: breaker.ForcedOpen})
	})
	for i := range 100 {
		many.Get(fmt.Sprint("host-", i))
	}
	h := &telemetry.Health{}
	h.Watch("calls", many)
	if _, r, _ := page(t, h); len(r.Parts[0].Details) != 21 || r.Parts[0].Details[20] != "and 80 more" {
		t.Errorf("got %q", r.Parts[0].Details)
	}
}

func ExampleHealth() {
	stock := breaker.New(breaker.Config{Name: "stock"})
	health := &telemetry.Health{}
	health.Watch("calls", backstay.Chain(stock))
	health.Add("relay", func(context.Context) error { return nil }) // in a service: relay.Health()
	stock.Trip()
	report := health.Report(context.Background())
	fmt.Println(report.State, report.Parts[0].Details)
	// Output: degraded [breaker "stock": open]
}
