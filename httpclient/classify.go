package httpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/internal/deadline"
)

// classify says what a response counts as.
//
//	429               not a breaker's failure, repeated, an overload
//	503               failure, repeated, an overload
//	500, 502, 504     failure, repeated
//	408, 425          neutral, repeated
//	501               success: the server works, it has not got this
//	other 5xx         failure, not repeated
//	all the rest      success
//
// Repeated means: if the request may be, and the server does not say X-Should-Retry: false.
func (x *exchange) classify(resp *http.Response) backstay.Outcome {
	code := resp.StatusCode
	out := backstay.Outcome{Value: resp, Class: backstay.Success, Sent: backstay.SentYes, Answered: true, Status: uint16(code)} // three digits: net/http takes no others
	again := false
	switch {
	case code == http.StatusTooManyRequests:
		out.Class, again, out.Shed = backstay.Neutral, true, true
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly:
		out.Class, again = backstay.Neutral, true
	case code < 500 || code == http.StatusNotImplemented:
		return out
	case code == http.StatusServiceUnavailable:
		out.Class, again, out.Shed = backstay.Failure, true, true
	case code == http.StatusInternalServerError || code == http.StatusBadGateway || code == http.StatusGatewayTimeout:
		out.Class, again = backstay.Failure, true
	default:
		out.Class = backstay.Failure
	}
	wait, hinted := retryAfter(resp.Header)
	if hinted {
		out.Wait = max(wait, 1) // 0 would be no hint
	}
	refused := hinted && (code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable)
	out.Again = backstay.No
	if again && resp.Header.Get(shouldRetry) != "false" && (x.repeat || x.t.settings.retryRefused && refused) && x.body.replayable() {
		out.Again = backstay.Yes
	}
	out.Err = &StatusError{Code: code, Method: x.req.Method, URL: redacted(x.req.URL), Header: resp.Header}
	return out
}

// failure turns an error of the transport inside into an outcome.
func (x *exchange) failure(bound *deadline.Ctx, err error, sent *sentTrace) backstay.Outcome {
	out := backstay.Outcome{Err: err, Class: backstay.Failure, Again: backstay.No, Sent: backstay.SentUnknown}
	if x.req.Context().Err() != nil {
		out.Err = backstay.ContextErr(x.req.Context()) // net/http returns a cause of the user's own bare
	}
	if neverSent(err, sent) {
		out.Sent = backstay.SentNever
	}
	switch {
	case x.localFault() || errors.Is(err, errNotReplayable):
		out.Class, out.Sent = backstay.Neutral, backstay.SentNever
	case permanent(err):
	case (x.repeat || out.Sent == backstay.SentNever) && x.body.replayable():
		out.Again = backstay.Yes
	}
	if cause := context.Cause(bound); cause == error(errStalled) {
		out.Err = cause
	}
	return out
}

// neverSent reports whether err proves that no byte of the request has left this process.
func neverSent(err error, sent *sentTrace) bool {
	if sent != nil && !sent.got.Load() {
		return true
	}
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") {
		return true
	}
	var stream streamError
	const refusedStream = 0x7 // RFC 9113 §7: REFUSED_STREAM, §8.7: was not processed
	return errors.As(err, &stream) && stream.Code == refusedStream
}

// streamError has the shape of golang.org/x/net/http2.StreamError, into which net/http's own form of it converts.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "http2: stream error" }

// permanent reports whether err will be the same however often the request is made.
func permanent(err error) bool {
	var (
		cert     *tls.CertificateVerificationError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		roots    x509.SystemRootsError
		record   tls.RecordHeaderError
		alert    tls.AlertError
		dns      *net.DNSError
	)
	switch {
	case errors.As(err, &cert), errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &roots),
		errors.As(err, &record), errors.As(err, &alert):
		return true
	case errors.As(err, &dns):
		return dns.IsNotFound
	}
	return errors.Is(err, http.ErrUseLastResponse) || errors.Is(err, http.ErrSchemeMismatch)
}

// localFault reports whether the request itself is such that net/http refuses to send it. It is asked only after an error, so
// that good requests pay nothing; net/http's own errors for these have no type.
func (x *exchange) localFault() bool {
	req := x.req
	if req.URL == nil || req.Header == nil || req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return true
	}
	if req.Method != "" && !isToken(req.Method) {
		return true
	}
	for _, h := range []http.Header{req.Header, req.Trailer} {
		for name, values := range h {
			if !isToken(name) {
				return true
			}
			for _, v := range values {
				if strings.ContainsFunc(v, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
					return true
				}
			}
		}
	}
	return false
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
	})
}

// idempotent reports whether a method may be repeated by what it means: RFC 9110 §9.2.2, and QUERY.
func idempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete, "QUERY":
		return true
	}
	return false
}

// readOnly reports whether a method has no effect by what it means: RFC 9110 §9.2.1, and QUERY.
func readOnly(method string) bool {
	switch method {
	case http.MethodPut, http.MethodDelete:
		return false
	}
	return idempotent(method)
}

// redacted returns u without its user, query and fragment, which may hold secrets.
func redacted(u *url.URL) string {
	if u == nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
