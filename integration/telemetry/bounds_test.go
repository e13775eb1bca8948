package telemetry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/telemetry"
)

// answers is a transport that answers at once: 500 every fourth time.
type answers struct{ n int }

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	status := http.StatusOK
	if a.n++; a.n%4 == 0 {
		status = http.StatusInternalServerError
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

// 100,000 hosts: keys that have labels of their own are bounded, and all others are counted as one.
func TestHostsAreBounded(t *testing.T) {
	hosts := 100_000
	if testing.Short() {
		hosts = 5_000
	}
	const keys = 50
	m := newMeter(t)
	tr := httpclient.New(&answers{}, httpclient.PerHost(breaker.Config{}), httpclient.Metrics(telemetry.Config{Keys: keys}))
	for i := range hosts {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://host-%d.example/", i), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	for name, points := range m.points() {
		distinct := map[string]bool{}
		for _, p := range points {
			distinct[p.attrs["backstay.key"]] = true
		}
		if len(distinct) > keys+1 || len(points) > 4*(keys+1) {
			t.Errorf("%s: got %d keys in %d series, want at most %d and _other", name, len(distinct), len(points), keys)
		}
	}
	m.want(float64(hosts), "backstay.call.duration")
	if v, _ := m.value("backstay.call.duration", "backstay.key=_other"); v != float64(hosts-keys) {
		t.Errorf("calls to _other: got %g, want %d", v, hosts-keys)
	}
	m.want(1024, "backstay.breaker.count")
	runtime.KeepAlive(tr)
}

// So are the names of calls, of errors and whatever else a caller could vary.
func TestLabelsAreBounded(t *testing.T) {
	m := newMeter(t)
	p := telemetry.Attach(backstay.Chain(), telemetry.Config{ErrorType: func(err error) string { return err.Error() }})
	for i := range 10_000 {
		_ = backstay.Run(context.Background(), p, func(context.Context) error { return fmt.Errorf("error %d", i) }, backstay.Named(fmt.Sprint("call ", i%1000)))
	}
	points := m.points()["backstay.call.duration"]
	calls, errs := map[string]bool{}, map[string]bool{}
	for _, p := range points {
		calls[p.attrs["backstay.call"]], errs[p.attrs["error.type"]] = true, true
	}
	if len(calls) != 257 || len(errs) != 65 || !calls["_other"] || !errs["_OTHER"] {
		t.Errorf("got %d names of calls and %d of errors, want 256 and 64, and one for all others", len(calls), len(errs))
	}
	m.want(10_000, "backstay.call.duration")
}
