package grpcclient_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/grpcclient"
	"github.com/backstay-go/backstay/retry"
)

// 57: the call goes before the table, a method before its service, the service before the .proto, that before the default.
func TestWhoSays(t *testing.T) {
	yes, no := grpcclient.Method{Repeat: "yes"}, grpcclient.Method{Repeat: "no"}
	service := "/backstay.test.Shop/*"
	for _, tc := range []struct {
		name   string
		table  grpcclient.Methods
		method string
		opts   []grpc.CallOption
		hits   int
	}{
		{"nobody", nil, charge, nil, 1},
		{"the default", grpcclient.Methods{"*": yes}, charge, nil, 3},
		{"the .proto before the default", grpcclient.Methods{"*": no}, get, nil, 3},
		{"the service before the .proto", grpcclient.Methods{"*": yes, service: no}, get, nil, 1},
		{"the method before the service", grpcclient.Methods{service: no, get: yes}, get, nil, 3},
		{"the call before the method", grpcclient.Methods{charge: no}, charge, []grpc.CallOption{grpcclient.Idempotent()}, 3},
		{"the call's no", grpcclient.Methods{get: yes}, get, []grpc.CallOption{grpcclient.NoRetry()}, 1},
		{"the table's attempts", grpcclient.Methods{get: {Attempts: 2}}, get, nil, 2},
		{"the call's attempts", grpcclient.Methods{get: {Attempts: 2}}, get, []grpc.CallOption{grpcclient.Attempts(4)}, 4},
		{"the call's attempts, none", grpcclient.Methods{get: {Attempts: 2}}, get, []grpc.CallOption{grpcclient.Attempts(-1)}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			busy := codesOf(codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.Unavailable)
			inWorld(t, busy, func(t *testing.T, w *world) {
				_, err := call(t.Context(), w.dial(fast(3), tc.table), tc.method, tc.opts...)
				wantCode(t, err, codes.Unavailable)
				w.wantHits(tc.hits)
			})
		})
	}
}

// Bad input is refused with all its faults named.
func TestValidate(t *testing.T) {
	bad := grpcclient.Methods{
		"Get":                       {},
		"/backstay.test.Shop/Gte":   {Attempts: -1, Repeat: "maybe"},
		"/no.such.Service/Get":      {},
		"/no.such.Service/Post":     {Unregistered: true},
		"/backstay.test.Shop/Get":   {RetryOn: []string{"UNAVAILABLE", "BUSY", ""}, FailOn: []string{"OK"}},
		"/backstay.test.Shop/Get/x": {},
	}
	err := bad.Validate()
	for _, want := range []string{
		`Methods["Get"]: want "/package.Service/Method"`, `Methods["/backstay.test.Shop/Gte"]: unknown method: service backstay.test.Shop has no Gte`,
		`["/backstay.test.Shop/Gte"].Attempts is -1`, `.Repeat is "maybe"`, `unknown service no.such.Service`, `RetryOn: "BUSY" is no status code`,
		`"" is no status code`, `FailOn: OK is no error`, `Methods["/backstay.test.Shop/Get/x"]`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "Post") {
		t.Errorf("got %v, want nothing about Post", err)
	}
	defer func() {
		if got, _ := recover().(error); got == nil || got.Error() != err.Error() {
			t.Errorf("New: got a panic of %v, want the same error", got)
		}
	}()
	grpcclient.DialOptions(bad)
}

func TestMethodJSON(t *testing.T) {
	const doc = `{"*":{"repeat":"no"},"/backstay.test.Shop/Get":{"attempts":4,"hedge":"50ms","retryOn":["UNAVAILABLE"],"failOn":["INTERNAL"],"unregistered":true}}`
	want := grpcclient.Methods{
		"*": {Repeat: "no"},
		get: {Attempts: 4, Hedge: 50 * time.Millisecond, RetryOn: []string{"UNAVAILABLE"}, FailOn: []string{"INTERNAL"}, Unregistered: true},
	}
	var got grpcclient.Methods
	if err := json.Unmarshal([]byte(doc), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	if text, err := json.Marshal(want); err != nil || string(text) != doc {
		t.Errorf("got %s and %v, want %s", text, err, doc)
	}
	for _, bad := range []string{`{"x":{"attemps":3}}`, `{"x":{"hedge":"soon"}}`, `{"x":3}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

// gRPC takes the service config, and repeats by it.
func TestServiceConfig(t *testing.T) {
	text := grpcclient.ServiceConfig(retry.Config{Attempts: -1, Delay: 10 * time.Millisecond, MaxDelay: -1}, grpcclient.Methods{"*": {Repeat: "yes", RetryOn: []string{"DATA_LOSS"}}, get: {}, charge: {Repeat: "no"}, put: {Attempts: 1}})
	const want = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":5,"initialBackoff":"0.01s","maxBackoff":"86400s","backoffMultiplier":2,"retryableStatusCodes":["DATA_LOSS"]}},` +
		`{"name":[{"service":"backstay.test.Shop","method":"Charge"}]},` +
		`{"name":[{"service":"backstay.test.Shop","method":"Get"}],"retryPolicy":{"maxAttempts":5,"initialBackoff":"0.01s","maxBackoff":"86400s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}},` +
		`{"name":[{"service":"backstay.test.Shop","method":"Put"}]}],"retryThrottling":{"maxTokens":10,"tokenRatio":0.1}}`
	if text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	for method, hits := range map[string]int{get: 3, charge: 1} {
		inWorld(t, codesOf(codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
			_, _ = call(t.Context(), w.dialWith(grpc.WithDefaultServiceConfig(text)), method)
			w.wantHits(hits)
		})
	}
	inWorld(t, codesOf(codes.Unavailable, codes.Unavailable, codes.Unavailable), func(t *testing.T, w *world) {
		// Ours and gRPC's own do not multiply.
		opts := append(grpcclient.DialOptions(fast(3)), grpc.WithDefaultServiceConfig(text))
		_, _ = call(t.Context(), w.dialWith(opts...), get)
		w.wantHits(3)
	})
}

// State is kept by target, or by whatever the user says.
func TestKeys(t *testing.T) {
	for _, tc := range []struct {
		name  string
		by    func(target, method string) string
		other codes.Code // of another method, once get has opened its breaker
	}{
		{"by target", nil, codes.Unavailable},
		{"by method", grpcclient.ByMethod, codes.OK},
	} {
		inWorld(t, func(s grpc.ServerStream, hit int) error {
			if hit == 1 {
				return errBusy
			}
			return answer()(s, hit)
		}, func(t *testing.T, w *world) {
			conn := w.dial(grpcclient.KeyBy(tc.by), grpcclient.PerTarget(breaker.Config{Consecutive: 1, Spread: -1}))
			_, _ = call(t.Context(), conn, get)
			_, err := call(t.Context(), conn, get)
			wantCode(t, err, codes.Unavailable)
			_, err = call(t.Context(), conn, put)
			wantCode(t, err, tc.other)
		})
	}
}

func TestString(t *testing.T) {
	c := grpcclient.New()
	got := c.String()
	for _, want := range []string{"timeout \"total\"", "retry", "hedge on request", "adaptive", "bulkhead", "breaker", "timeout \"attempt\"", "call"} {
		i := strings.Index(got, want)
		if i < 0 {
			t.Fatalf("got\n%s\nwant %q after what came before", c.String(), want)
		}
		got = got[i:]
	}
	if f := c.Lint(); len(f) != 0 {
		t.Errorf("got the findings %v, want none", f)
	}
}
