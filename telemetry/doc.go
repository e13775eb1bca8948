// Package telemetry is how Backstay speaks OpenTelemetry: by its API alone, so that it costs next to nothing where no SDK is installed.
//
// So far it makes traces of HTTP calls. httpclient starts a logical span for each call whose caller's span records ([StartHTTP]); it has the
// whole call, waits included. Attempts are client spans made by otelhttp, which stands inside, and [ResendCount] numbers them:
//
//	base := otelhttp.NewTransport(telemetry.ResendCount(http.DefaultTransport))
//	client := &http.Client{Transport: httpclient.New(base)}
//
// A failure that a retry has mended marks its attempt's span and not the logical one. Error texts, URLs, headers and bodies are
// in no span: they may hold secrets.
package telemetry
