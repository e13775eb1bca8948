// Telemetry prints what OpenTelemetry gets to see of a call that is repeated and of a breaker that opens: spans and metrics, with the SDK's stdout
// exporters. Installing the providers is all the wiring there is.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/telemetry"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	spans, err := stdouttrace.New(stdouttrace.WithWriter(os.Stdout), stdouttrace.WithPrettyPrint())
	if err != nil {
		return err
	}
	metrics, err := stdoutmetric.New(stdoutmetric.WithWriter(os.Stdout), stdoutmetric.WithPrettyPrint())
	if err != nil {
		return err
	}
	tracing := trace.NewTracerProvider(trace.WithSyncer(spans))
	measuring := metric.NewMeterProvider(metric.WithReader(metric.NewPeriodicReader(metrics)))
	otel.SetTracerProvider(tracing)
	otel.SetMeterProvider(measuring)

	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" || hits.Add(1) <= 2 { // the first two requests, and all to /down
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()

	transport := httpclient.New(otelhttp.NewTransport(telemetry.ResendCount(http.DefaultTransport)),
		standard.New(standard.Config{Retry: retry.Config{Delay: -1}, Breaker: breaker.Config{Consecutive: 5, Spread: -1}}),
		httpclient.Metrics(telemetry.Config{Name: "inventory"}))
	client := &http.Client{Transport: transport}

	// Three attempts, one call: three client spans under a logical one that is not marked.
	ctx, span := otel.Tracer("example").Start(ctx, "place order")
	get(ctx, client, srv.URL+"/items")
	// A server that stays down: the breaker opens, and the health report says so.
	for range 8 {
		get(ctx, client, srv.URL+"/down")
	}
	span.End()

	var health telemetry.Health
	health.Watch("inventory", transport.Pipeline())
	report := health.Report(ctx)
	if err := measuring.Shutdown(ctx); err != nil { // collects, and prints the metrics
		return err
	}
	if err := tracing.Shutdown(ctx); err != nil {
		return err
	}
	fmt.Println("health:", report.State, report.Parts[0].Details)
	return nil
}

func get(ctx context.Context, client *http.Client, url string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("answered:", resp.StatusCode)
	_ = resp.Body.Close()
}
