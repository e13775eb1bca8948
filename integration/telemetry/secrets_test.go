package telemetry

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
	"github.com/backstay-go/backstay/outbox/outboxsql"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"github.com/backstay-go/backstay/telemetry"
)

const canary = "canary7f3a"

// A secret in a URL, a header, a body, a DSN and a payload is in no span, no metric, no log line and no error's text that Backstay makes.
func TestCanary(t *testing.T) {
	m := newMeter(t)
	exporter := globalTracing(t)
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var texts []string
	heard := func(where string, err error) {
		if err == nil {
			t.Errorf("%s: got no error", where)
			return
		}
		texts = append(texts, where+": "+err.Error())
	}
	ctx, caller := otel.Tracer("test").Start(context.Background(), "caller")

	// HTTP: a server that answers 503, one that is gone, and a breaker that refuses.
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", canary)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, canary)
	}))
	defer srv.Close()
	request := func(u string) *http.Request {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, strings.Replace(u, "http://", "http://user:"+canary+"@", 1)+"/?token="+canary, strings.NewReader(canary))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", canary)
		return req
	}
	base := otelhttp.NewTransport(telemetry.ResendCount(&http.Transport{}))
	tr := httpclient.New(base, backstay.Chain(retry.New(retry.Config{Attempts: 2, Delay: -1}), httpclient.PerHost(breaker.Config{Consecutive: 4, Spread: -1})).
		Observe(backstay.NewSlogObserver(log)), httpclient.ErrorMode())
	for range 3 { // the third is refused
		_, err := tr.RoundTrip(request(srv.URL))
		heard("a failing server", err)
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, err := tr.RoundTrip(request(gone.URL))
	heard("a server that is gone", err)

	// A saga whose input and output are secret.
	d := saga.Must(saga.Define("secret", 1, func(b *saga.Builder[string]) {
		saga.Step(b, "hide", func(_ *saga.Ctx, in string) (string, error) { return in, nil }).NothingToUndo("a test")
		saga.Step(b, "show", func(*saga.Ctx, string) (string, error) { return canary, saga.Fail(errors.New("declined")) }).Pivot()
	}))
	heard("a saga", sagamem.Run(ctx, d, canary))

	// An outbox whose payload and header are, and whose publisher refuses.
	box := outboxmem.New()
	parked := make(chan string, 1)
	relay := outbox.NewRelay(box.Source(), outbox.PublisherFunc(func(_ context.Context, batch []*outbox.Message, result []error) {
		for i := range batch {
			result[i] = outbox.Permanent(errors.New("refused"))
		}
	}), outbox.RelayConfig{Name: "main", Log: log, OnParked: func(_ *outbox.Message, reason string) { parked <- reason }})
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	message := outbox.Message{Topic: "orders", Key: "o-1", Payload: []byte(canary), Headers: map[string]string{"secret": canary}}
	if err := box.Enqueue(ctx, message); err != nil {
		t.Fatal(err)
	}
	texts = append(texts, "parked: "+<-parked)
	_ = relay.Shutdown(context.Background())
	<-ended
	heard("a bad message", box.Enqueue(ctx, outbox.Message{Payload: []byte(canary), Headers: map[string]string{"secret": canary}}))

	// A database that is not there.
	db, err := sql.Open("pgx", "postgres://user:"+canary+"@127.0.0.1:1/none?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	_, err = outboxsql.New(outboxsql.Postgres).Gauges(ctx, db)
	heard("a database that is gone", err)
	health := &telemetry.Health{ShowErrors: true}
	health.Watch("calls", tr.Pipeline())
	health.Add("database", db.PingContext)
	page := httptest.NewRecorder()
	health.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/health", nil))
	caller.End()

	look := func(where, text string) {
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s: the secret is in %q", where, text[max(0, i-200):min(len(text), i+50)])
		}
	}
	for _, text := range texts {
		look("an error", text)
	}
	look("the log", logged.String())
	look("the health page", page.Body.String())
	for name, points := range m.points() {
		look("the metric "+name, fmt.Sprint(points))
	}
	for _, s := range exporter.GetSpans() {
		ours := strings.HasPrefix(s.InstrumentationScope.Name, "github.com/backstay-go/")
		text := fmt.Sprint(s.Name, s.Status, printed(s.Attributes))
		for _, e := range s.Events {
			text += e.Name + printed(e.Attributes)
		}
		if ours {
			look("the span "+s.Name, text)
		}
	}
	if logged.Len() == 0 || len(m.points()) < 10 || len(exporter.GetSpans()) < 10 {
		t.Errorf("got %d bytes of log, %d metrics, %d spans: too few to have looked at anything", logged.Len(), len(m.points()), len(exporter.GetSpans()))
	}
}

// An error of the function's own may carry a secret in its text: the text is in no span, event or metric.
func TestForeignErrorText(t *testing.T) {
	m := newMeter(t)
	exporter := globalTracing(t)
	ctx, caller := otel.Tracer("test").Start(context.Background(), "caller")
	p := telemetry.Attach(backstay.Chain(retry.New(retry.Config{Attempts: 3, Delay: -1})), telemetry.Config{})
	var spans telemetry.Spans
	ctx, span := spans.Start(ctx, "charge")
	err := backstay.Run(ctx, p, func(context.Context) error { return fmt.Errorf("dial: %w", errors.New(canary)) })
	span.End(telemetry.ErrorType(err))
	caller.End()
	logical := find(t, exporter.GetSpans(), "backstay charge")
	text := fmt.Sprint(logical.Status, printed(logical.Attributes))
	for _, e := range logical.Events {
		text += e.Name + printed(e.Attributes)
	}
	if len(logical.Events) != 3 || strings.Contains(text, canary) {
		t.Errorf("got %d events, want two retries and the stop, and no secret in %s", len(logical.Events), text)
	}
	if text := fmt.Sprint(m.points()); strings.Contains(text, canary) || !strings.Contains(text, "_OTHER") {
		t.Errorf("metrics: want the failure, and no secret in %s", text)
	}
}

func printed(attrs []attribute.KeyValue) string {
	var s strings.Builder
	for _, a := range attrs {
		fmt.Fprintf(&s, " %s=%s", a.Key, a.Value.String())
	}
	return s.String()
}
