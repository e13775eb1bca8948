package httpclient

import (
	"fmt"
	"net/http"
	"strconv"
)

// StatusError is the error of an answer that counts as a failure or asks to be repeated. The caller of a Transport sees it only inside other
// errors: with ErrorMode, in call reports, and when a response could not be kept. The request was sent and may have had effect.
type StatusError struct {
	Code    int         // the status
	Method  string      // of the request; "" is GET
	URL     string      // without user, query and fragment
	Header  http.Header // of the answer; may hold secrets; not printed
	Snippet []byte      // up to 1 KiB of the body, in error mode; not printed
}

// Error returns, for example, "GET http://inventory/items: 503 Service Unavailable".
func (e *StatusError) Error() string {
	method := e.Method
	if method == "" {
		method = http.MethodGet
	}
	return fmt.Sprintf("%s %s: %d %s", method, e.URL, e.Code, http.StatusText(e.Code))
}

// ErrorType returns the status, such as "503": the value of OpenTelemetry's error.type.
func (e *StatusError) ErrorType() string { return strconv.Itoa(e.Code) }
