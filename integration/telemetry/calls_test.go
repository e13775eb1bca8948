package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/chaos"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/telemetry"
	"github.com/backstay-go/backstay/timeout"
)

var errBoom = errors.New("boom")

// serve answers with the codes in turn, then with 200.
func serve(t *testing.T, codes ...int) *httptest.Server {
	t.Helper()
	hits := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if hits++; hits <= len(codes) {
			w.WriteHeader(codes[hits-1])
		}
		_, _ = io.WriteString(w, "body")
	}))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, client *http.Client, u string) int {
	t.Helper()
	resp, err := client.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// An http.Client with the default pipeline is measured without wiring.
func TestHTTPMetrics(t *testing.T) {
	m := newMeter(t)
	srv := serve(t, 500, 503)
	tr := httpclient.New(&http.Transport{}, standard.New(standard.Config{Retry: retry.Config{Delay: -1}}), httpclient.Metrics(telemetry.Config{Name: "inventory"}))
	client := &http.Client{Transport: tr}
	if code := get(t, client, srv.URL); code != 200 {
		t.Fatalf("got %d, want 200", code)
	}
	u, _ := url.Parse(srv.URL)
	who := []string{"http.request.method=GET", "server.address=127.0.0.1", "server.port=" + u.Port(), "backstay.key=" + srv.URL, "backstay.client=inventory"}
	m.want(1, "backstay.call.duration", append(who, "backstay.outcome=success")...)
	m.want(3, "backstay.attempt.count", who...)
	m.want(1, "backstay.attempt.count", append(who, "backstay.attempt.kind=first", "error.type=500")...)
	m.want(2, "backstay.attempt.count", append(who, "backstay.attempt.kind=retry")...)
	m.want(1, "backstay.attempt.count", append(who, "backstay.attempt.kind=retry", "error.type=503")...)
	m.want(2, "backstay.retry.delay", append(who, "backstay.reason=schedule")...)
	m.want(1, "backstay.breaker.count", "backstay.key="+srv.URL, "backstay.breaker.state=closed", "backstay.client=inventory")
	m.want(0, "backstay.limit.in_use", "backstay.key="+srv.URL, "backstay.policy.type=adaptive")
	if v, ok := m.value("backstay.budget.tokens", "backstay.key="+srv.URL); !ok || v >= 2 {
		t.Errorf("backstay.budget.tokens: got %g (there: %v), want less than the 2 that a new one has", v, ok)
	}
	for _, p := range m.points()["backstay.call.attempts"] {
		if p.sum != 3 || p.value != 1 {
			t.Errorf("backstay.call.attempts: got %g in %g calls, want 3 in 1", p.sum, p.value)
		}
	}
	runtime.KeepAlive(tr)
}

// Errors and refusals have names of few values.
func TestFailedCallMetrics(t *testing.T) {
	m := newMeter(t)
	srv := serve(t, 503, 503, 503)
	client := &http.Client{Transport: httpclient.New(&http.Transport{}, retry.New(retry.Config{Attempts: 3, Delay: -1}))}
	get(t, client, srv.URL)
	m.want(1, "backstay.call.duration", "backstay.outcome=failure", "error.type=503")
	m.want(1, "backstay.retry.stops", "backstay.reason=attempts", "backstay.policy.type=retry")

	srv.Close()
	once := &http.Client{Transport: httpclient.New(&http.Transport{}, timeout.New(time.Minute))}
	if _, err := once.Get(srv.URL); err == nil {
		t.Fatal("a server that is gone: want an error")
	}
	m.want(1, "backstay.call.duration", "backstay.outcome=failure", "error.type=*net.OpError")
}

// Each policy's doings have a metric.
func TestPolicyMetrics(t *testing.T) {
	m := newMeter(t)
	fail := func(context.Context) error { return errBoom }
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Name: "stock", Consecutive: 1, Spread: -1})
		p := telemetry.Attach(backstay.Chain(b), telemetry.Config{})
		_ = backstay.Run(context.Background(), p, fail, backstay.Named("load"))
		_ = backstay.Run(context.Background(), p, fail, backstay.Named("load"))
		m.want(1, "backstay.breaker.transitions", "backstay.breaker.from=closed", "backstay.breaker.to=open", "backstay.policy.name=stock")
		m.want(1, "backstay.rejections", "backstay.policy.type=breaker", "backstay.policy.name=stock", "backstay.call=load")
		m.want(1, "backstay.call.duration", "backstay.outcome=rejected", "error.type=breaker", "backstay.call=load")
		m.want(1, "backstay.breaker.count", "backstay.breaker.state=open", "backstay.policy.name=stock")
		runtime.KeepAlive(p)
	})
	synctest.Test(t, func(t *testing.T) {
		shadow := breaker.New(breaker.Config{Name: "shadow", Mode: breaker.Shadow, Consecutive: 1, Spread: -1})
		p := telemetry.Attach(backstay.Chain(shadow), telemetry.Config{})
		for range 3 {
			_ = backstay.Run(context.Background(), p, fail)
		}
		m.want(2, "backstay.shadow.rejections", "backstay.policy.type=breaker", "backstay.policy.name=shadow")
	})
	synctest.Test(t, func(t *testing.T) {
		p := telemetry.Attach(backstay.Chain(timeout.NewWith(timeout.Config{Name: "total", Limit: time.Second})), telemetry.Config{})
		_ = backstay.Run(context.Background(), p, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		m.want(1, "backstay.timeouts", "backstay.policy.name=total")
		m.want(1, "backstay.call.duration", "backstay.outcome=failure", "error.type=timeout")
	})
	synctest.Test(t, func(t *testing.T) {
		full := bulkhead.New(bulkhead.Config{Name: "pool", Limit: 1, Queue: 1})
		p := telemetry.Attach(backstay.Chain(full), telemetry.Config{})
		hold, done := make(chan struct{}), make(chan error)
		run := func() {
			done <- backstay.Run(context.Background(), p, func(context.Context) error { <-hold; return nil })
		}
		go run()
		synctest.Wait()
		go run()
		synctest.Wait()
		if err := backstay.Run(context.Background(), p, fail); !errors.Is(err, bulkhead.ErrFull) {
			t.Fatalf("got %v, want it full", err)
		}
		m.want(1, "backstay.limit.in_use", "backstay.policy.name=pool", "backstay.policy.type=bulkhead")
		m.want(1, "backstay.limit.waiting", "backstay.policy.name=pool")
		m.want(1, "backstay.limit.max", "backstay.policy.name=pool")
		m.want(1, "backstay.rejections", "backstay.policy.name=pool", "backstay.policy.type=bulkhead")
		time.Sleep(time.Second / 2)
		close(hold)
		<-done
		<-done
		m.want(1, "backstay.limit.wait.duration", "backstay.policy.name=pool")
		runtime.KeepAlive(p)
	})
	synctest.Test(t, func(t *testing.T) {
		p := telemetry.Attach(backstay.Chain(hedge.New(hedge.Config{Delay: time.Second})), telemetry.Config{})
		var calls atomic.Int32
		_ = backstay.Run(context.Background(), p, func(ctx context.Context) error {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, backstay.Idempotent())
		synctest.Wait()
		m.want(1, "backstay.hedge.attempts")
		m.want(1, "backstay.hedge.wins", "backstay.hedge.winner=hedge")
		m.want(1, "backstay.attempt.count", "backstay.attempt.kind=hedge")
	})
	synctest.Test(t, func(t *testing.T) {
		p := telemetry.Attach(backstay.Chain(
			fallback.New(fallback.Call(func(context.Context, error) (any, error) { return nil, nil }), fallback.Config{}),
			ratelimit.New(ratelimit.Config{Name: "quota", Rate: 1, Burst: 1}),
			chaos.New(chaos.Config{Name: "game-day", On: true, FaultRate: 1}),
		), telemetry.Config{})
		for range 2 {
			_ = backstay.Run(context.Background(), p, fail)
		}
		m.want(2, "backstay.fallbacks")
		m.want(1, "backstay.chaos.faults", "backstay.policy.name=game-day")
		m.want(1, "backstay.rejections", "backstay.policy.type=ratelimit", "backstay.policy.name=quota")
		m.want(0, "backstay.ratelimit.tokens", "backstay.policy.name=quota")
		runtime.KeepAlive(p)
	})
}

// Where no SDK collects, a pipeline makes no events.
func TestNoSDK(t *testing.T) {
	otel.SetMeterProvider(noop.NewMeterProvider())
	o := telemetry.New(telemetry.Config{})
	if o.Enabled(context.Background()) {
		t.Error("Enabled without an SDK: got true")
	}
	heard := 0
	p := backstay.Chain(backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
		return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
			if call.Observer() != nil {
				heard++
			}
			return next(ctx, call)
		}
	})).Observe(o)
	_ = backstay.Run(context.Background(), p, func(context.Context) error { return nil })
	if heard != 0 {
		t.Error("a call without an SDK has an observer")
	}
}

// A client that is thrown away takes its gauges along.
func TestForgottenClient(t *testing.T) {
	m := newMeter(t)
	func() {
		p := telemetry.Attach(backstay.Chain(breaker.New(breaker.Config{Name: "gone"})), telemetry.Config{})
		m.want(1, "backstay.breaker.count", "backstay.policy.name=gone")
		runtime.KeepAlive(p)
	}()
	runtime.GC()
	runtime.GC()
	if v, ok := m.value("backstay.breaker.count", "backstay.policy.name=gone"); ok {
		t.Errorf("the breaker of a pipeline that is gone: got %g", v)
	}
}

// Two clients of one server add up.
func TestGaugesAddUp(t *testing.T) {
	m := newMeter(t)
	var all []*backstay.Pipeline
	for range 3 {
		all = append(all, telemetry.Attach(backstay.Chain(breaker.New(breaker.Config{Name: "shared"})), telemetry.Config{}))
	}
	m.want(3, "backstay.breaker.count", "backstay.policy.name=shared", "backstay.breaker.state=closed")
	m.want(3, "backstay.breaker.count", "backstay.policy.name=shared", "backstay.breaker.state=closed") // and do not pile up
	runtime.KeepAlive(all)
}

// What is done to a breaker by hand, or by a value that broke after its call, is counted like what calls do; and what a call does is counted once.
func TestTransitionsWithoutCall(t *testing.T) {
	m := newMeter(t)
	by := func(key, from, to string) []string {
		return []string{"backstay.key=" + key, "backstay.breaker.from=" + from, "backstay.breaker.to=" + to}
	}
	hosts := httpclient.PerHost(breaker.Config{Consecutive: 1, Spread: -1})
	p := telemetry.Attach(backstay.Chain(hosts), telemetry.Config{})
	run := func(key string, err error) {
		_ = backstay.Run(context.Background(), p, func(context.Context) error { return err }, backstay.WithKey(key))
	}
	run("a", nil)
	a, _ := hosts.Lookup("a")
	a.Trip()
	a.Reset()
	a.SetMode(breaker.ForcedOpen)
	a.SetMode(breaker.Auto)
	m.want(1, "backstay.breaker.transitions", by("a", "closed", "open")...)
	m.want(1, "backstay.breaker.transitions", by("a", "open", "closed")...)
	m.want(1, "backstay.breaker.transitions", by("a", "closed", "forced-open")...)
	m.want(1, "backstay.breaker.transitions", by("a", "forced-open", "closed")...)
	run("b", errBoom)
	m.want(1, "backstay.breaker.transitions", by("b", "closed", "open")...)
	b, _ := hosts.Lookup("b")
	b.Reset()
	b.Record(backstay.Failure)
	m.want(2, "backstay.breaker.transitions", by("b", "closed", "open")...)
	runtime.KeepAlive(p)
}

// A breaker that outlives its client does not keep the client, and no longer tells it.
func TestForgottenWatcher(t *testing.T) {
	m := newMeter(t)
	b := breaker.New(breaker.Config{Name: "kept"})
	gone := make(chan struct{})
	func() {
		p := telemetry.Attach(backstay.Chain(b), telemetry.Config{})
		runtime.AddCleanup(p, func(c chan struct{}) { close(c) }, gone)
		b.Trip()
		m.want(1, "backstay.breaker.transitions", "backstay.policy.name=kept")
		runtime.KeepAlive(p)
	}()
	collected(t, gone)
	b.Reset()
	m.want(1, "backstay.breaker.transitions", "backstay.policy.name=kept")
}

// Calls that take turns are told apart, however often each comes again.
func TestSeriesApart(t *testing.T) {
	m := newMeter(t)
	p := telemetry.Attach(backstay.Chain(), telemetry.Config{})
	for range 5 {
		for _, key := range []string{"a", "b"} {
			for _, err := range []error{nil, errBoom} {
				_ = backstay.Run(context.Background(), p, func(context.Context) error { return err }, backstay.WithKey(key))
			}
		}
	}
	for _, key := range []string{"backstay.key=a", "backstay.key=b"} {
		m.want(5, "backstay.call.duration", key, "backstay.outcome=success")
		m.want(5, "backstay.call.duration", key, "backstay.outcome=failure", "error.type=_OTHER")
		m.want(5, "backstay.attempt.count", key, "error.type=_OTHER")
		m.want(10, "backstay.attempt.count", key)
	}
}
