package httpclient

import (
	"errors"
	"net/http"

	"github.com/backstay-go/backstay"
)

// shouldRetry is the header by which an answer that would be repeated says that it should not: "false". Clients of
// OpenAI's and Anthropic's APIs obey it too; Stripe's servers say it as Stripe-Should-Retry.
const shouldRetry = "X-Should-Retry"

// Relay answers the request of a server's handler when a call failed that the handler made to something else, such that the handler's own caller does not repeat what
// has been repeated here already: with three attempts on each of three floors the lowest would get 27. It reports whether there was a failure; if not, it does
// nothing, and the answer is the handler's to read and to close.
//
//	resp, err := inventory.Do(req)
//	if httpclient.Relay(w, resp, err) {
//		return
//	}
//	defer resp.Body.Close()
//
// An error, a 429 and any 5xx are failures. The answer is 504 for what timed out, 503 for what was refused (429, 503, a refusal of this library) and 502 for the rest, with
// the header X-Should-Retry: false, which clients of this package obey, as others do. Nothing of the error's text or of the answer's body is passed
// on; the body is closed. A handler that has something better to say, or that wants to be called again, answers itself.
func Relay(w http.ResponseWriter, resp *http.Response, err error) bool {
	code := http.StatusBadGateway
	switch {
	case err != nil:
		var timeout interface{ Timeout() bool }
		if errors.Is(err, backstay.ErrRejected) {
			code = http.StatusServiceUnavailable
		} else if errors.As(err, &timeout) && timeout.Timeout() {
			code = http.StatusGatewayTimeout
		}
	case resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500:
		return false
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable:
		code = http.StatusServiceUnavailable
	case resp.StatusCode == http.StatusGatewayTimeout:
		code = http.StatusGatewayTimeout
	}
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	w.Header().Set(shouldRetry, "false")
	http.Error(w, "a dependency failed", code)
	return true
}
