package httpclient

import (
	"math"
	"net/http"
	"strings"
	"time"
)

// retryAfter returns how long the header asks to wait: RFC 9110 §10.2.3, seconds or a date. Of several lines the first that can be read counts. A
// date is held against the response's own Date, so that the clocks of client and server need not agree. A time in the past is 0, a number too
// large for a Duration the largest one; what cannot be read, negative numbers included, is no hint.
func retryAfter(h http.Header) (wait time.Duration, ok bool) {
	for _, v := range h["Retry-After"] {
		v = strings.TrimSpace(v)
		if seconds, ok := digits(v); ok {
			return seconds, true
		}
		at, err := http.ParseTime(v)
		if err != nil {
			continue
		}
		now, err := http.ParseTime(h.Get("Date"))
		if err != nil {
			now = time.Now()
		}
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// digits reads a number of seconds, made of digits alone.
func digits(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	const most = math.MaxInt64 / int64(time.Second)
	n := int64(0)
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n <= most {
			n = n*10 + int64(c-'0')
		}
	}
	if n > most {
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Second, true
}
