package httpclient

import (
	"net/http"
	"net/url"
	"strings"
)

// Origin returns the default key of a request to u: scheme, host and port, in lower case and with the port always there: "http://example.com:80". The
// path never takes part.
func Origin(u *url.URL) string {
	if u == nil {
		return ""
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch {
	case u.Port() != "":
	case scheme == "https":
		host = strings.TrimSuffix(host, ":") + ":443"
	case scheme == "http":
		host = strings.TrimSuffix(host, ":") + ":80"
	}
	return scheme + "://" + host
}

// crossOrigin reports whether a redirect has led req to another origin than that of the first request.
func crossOrigin(req *http.Request) bool {
	here := Origin(req.URL)
	for r := req; r.Response != nil && r.Response.Request != nil; {
		r = r.Response.Request
		if Origin(r.URL) != here {
			return true
		}
	}
	return false
}

// previousKey returns the idempotency key that the request before this redirect hop was sent with.
func previousKey(req *http.Request) string {
	if req.Response == nil {
		return ""
	}
	if h, ok := req.Response.Body.(holder); ok {
		return h.answer().key
	}
	return ""
}
