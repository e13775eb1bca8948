// Package telemetry is how Backstay speaks OpenTelemetry: by its API alone, through the global providers. Where no SDK is installed a call costs one look
// at an instrument; where one is, the numbers are there without wiring.
//
// httpclient and grpcclient measure their calls by default. For a pipeline of one's own:
//
//	p := telemetry.Attach(backstay.Chain(…), telemetry.Config{Name: "charge"})
//
// # Metrics
//
// An [Observer] turns the events of policies into metrics: calls and attempts by outcome, waits and why a retry stopped, refusals, changes of breakers,
// hedges, time limits; and what no event carries (breakers by state, permits in use, tokens left) into gauges, which are asked for when metrics are
// collected. Names and attributes are in docs/telemetry.yaml; a dashboard and alert rules are beside it. Labels are bounded: keys beyond [Config].Keys
// are "_other".
//
// # Traces
//
// A call whose caller's span records has a logical span ([Spans] starts it; httpclient and grpcclient do so by themselves) that covers it whole, waits
// included, and has retries, refusals and hedges as its events. Attempts are client spans made by otelhttp and otelgrpc, which stand inside; [ResendCount] and
// grpcclient.ResendCount number them:
//
//	base := otelhttp.NewTransport(telemetry.ResendCount(http.DefaultTransport))
//	client := &http.Client{Transport: httpclient.New(base)}
//
// A failure that a retry has mended marks its attempt's span and not the logical one.
//
// # Health
//
// [Health] asks pipelines, relays and engines how they are, and answers over HTTP: ok, degraded (a breaker is open) or failed.
//
// # Secrets
//
// Error texts, URLs, headers and bodies are in no span and no metric: they may hold secrets. Errors are told by a name of few ([ErrorType]). What is told are names
// and keys that the program itself has chosen.
package telemetry
