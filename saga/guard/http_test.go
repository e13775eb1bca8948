package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/saga/guard"
)

func send(h http.Handler, method, path, key, op string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader("{}"))
	if key != "" {
		r.Header.Set(guard.HeaderKey, key)
	}
	if op != "" {
		r.Header.Set(guard.HeaderOp, op)
	}
	r.Header.Set(guard.HeaderEpoch, "7")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func want(t *testing.T, w *httptest.ResponseRecorder, status int, how string) {
	t.Helper()
	if w.Code != status || w.Header().Get(guard.HeaderGuard) != how {
		t.Errorf("got %d, guard %q, want %d, %q (%s)", w.Code, w.Header().Get(guard.HeaderGuard), status, how, w.Body)
	}
}

func TestHTTPReplaysTheAnswer(t *testing.T) {
	calls := 0
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		w.Header().Set("Location", "/holds/1")
		w.Header().Set("Set-Cookie", "secret=1")
		w.Header().Set("X-Kept", "yes")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"call":%d}`, calls)
	}), guard.HTTPConfig{Keep: []string{"x-kept"}})
	first := send(h, "POST", "/holds", "s/reserve", "action")
	want(t, first, http.StatusCreated, "ran")
	again := send(h, "POST", "/holds", "s/reserve", "action")
	want(t, again, http.StatusCreated, "replayed")
	if got, want := again.Body.String(), first.Body.String(); got != want || calls != 1 {
		t.Errorf("replay: got %q after %d calls, want %q after 1", got, calls, want)
	}
	for name, want := range map[string]string{"Location": "/holds/1", "X-Kept": "yes", "Set-Cookie": ""} {
		if got := again.Header().Get(name); got != want {
			t.Errorf("replayed header %s: got %q, want %q", name, got, want)
		}
	}
	want(t, send(h, "POST", "/other", "s/reserve", ""), http.StatusUnprocessableEntity, "")
}

func TestHTTPUndo(t *testing.T) {
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, body, ok := guard.ActionBody(r.Context()); ok {
			fmt.Fprintf(w, "undo of %d %s", status, body)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "done")
	}), guard.HTTPConfig{})
	want(t, send(h, "POST", "/a", "s/a", "action"), http.StatusAccepted, "ran")
	undo := send(h, "POST", "/a/undo", "s/a", "compensate")
	want(t, undo, http.StatusOK, "ran")
	if got, want := undo.Body.String(), "undo of 202 done"; got != want {
		t.Errorf("undo: got %q, want %q", got, want)
	}
	want(t, send(h, "POST", "/a/undo", "s/a", "compensate"), http.StatusOK, "replayed")

	want(t, send(h, "POST", "/a/undo", "s/b", "compensate"), http.StatusNoContent, "nothing")
	want(t, send(h, "POST", "/a", "s/b", "action"), http.StatusGone, "poisoned")
}

func TestHTTPConflictWhileRunning(t *testing.T) {
	in, out := make(chan bool), make(chan bool)
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in <- true
		<-out
	}), guard.HTTPConfig{})
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- send(h, "POST", "/a", "s/a", "") }()
	<-in
	second := send(h, "POST", "/a", "s/a", "")
	want(t, second, http.StatusConflict, "running")
	if second.Header().Get("Retry-After") == "" {
		t.Error("409 without Retry-After")
	}
	close(out)
	want(t, <-first, http.StatusOK, "ran")
	want(t, send(h, "POST", "/a", "s/a", ""), http.StatusOK, "replayed")
}

func TestHTTPRefusalRollsBack(t *testing.T) {
	status := http.StatusPaymentRequired
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no money", status)
	}), guard.HTTPConfig{})
	w := send(h, "POST", "/a", "s/a", "")
	want(t, w, http.StatusPaymentRequired, "ran")
	if !strings.Contains(w.Body.String(), "no money") {
		t.Errorf("body: got %q, want the handler's", w.Body)
	}
	status = http.StatusOK
	want(t, send(h, "POST", "/a", "s/a", ""), http.StatusOK, "ran")
}

func TestHTTPTooLarge(t *testing.T) {
	size := 101
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, size))
	}), guard.HTTPConfig{MaxBody: 100})
	want(t, send(h, "POST", "/a", "s/a", ""), http.StatusInternalServerError, "")
	size = 100
	want(t, send(h, "POST", "/a", "s/a", ""), http.StatusOK, "ran")
}

func TestHTTPKeys(t *testing.T) {
	calls := 0
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ })
	h := guard.HTTP(&guard.Memory{}, next, guard.HTTPConfig{})
	want(t, send(h, "POST", "/a", "", ""), http.StatusBadRequest, "")
	want(t, send(h, "POST", "/a", strings.Repeat("k", guard.MaxKey+1), ""), http.StatusBadRequest, "")
	want(t, send(h, "POST", "/a", "k", "drop table"), http.StatusBadRequest, "")
	if calls != 0 {
		t.Errorf("calls after bad keys: got %d, want 0", calls)
	}
	want(t, send(h, "GET", "/a", "", ""), http.StatusOK, "")
	h = guard.HTTP(&guard.Memory{}, next, guard.HTTPConfig{Keyless: true})
	want(t, send(h, "POST", "/a", "", ""), http.StatusOK, "")
	if calls != 2 {
		t.Errorf("calls let through: got %d, want 2", calls)
	}
}

func TestHTTPScope(t *testing.T) {
	calls := 0
	h := guard.HTTP(&guard.Memory{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ }),
		guard.HTTPConfig{Scope: func(r *http.Request) string { return r.URL.Query().Get("tenant") }})
	want(t, send(h, "POST", "/a?tenant=1", "k", ""), http.StatusOK, "ran")
	want(t, send(h, "POST", "/a?tenant=2", "k", ""), http.StatusOK, "ran")
	want(t, send(h, "POST", "/a?tenant=2", "k", ""), http.StatusOK, "replayed")
}

type brokenRunner struct{}

func (brokenRunner) Run(context.Context, guard.Call, guard.Func) (guard.Answer, error) {
	return guard.Answer{}, errors.New("password of the database is hunter2")
}

func TestHTTPDatabaseGone(t *testing.T) {
	w := send(guard.HTTP(brokenRunner{}, http.NotFoundHandler(), guard.HTTPConfig{}), "POST", "/a", "k", "")
	want(t, w, http.StatusServiceUnavailable, "")
	if strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("the answer tells what the database said: %q", w.Body)
	}
}

// retrying loses its first transaction, as after a deadlock.
type retrying struct{ guard.Memory }

func (r *retrying) Run(ctx context.Context, c guard.Call, fn guard.Func) (guard.Answer, error) {
	fn(ctx, nil)
	return r.Memory.Run(ctx, c, fn)
}

func TestHTTPReadsTheBodyOnce(t *testing.T) {
	calls := 0
	h := guard.HTTP(&retrying{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ }), guard.HTTPConfig{})
	want(t, send(h, "POST", "/a", "k", ""), http.StatusConflict, "running")
	if calls != 1 {
		t.Errorf("handler calls: got %d, want 1: its body was read", calls)
	}
}

func TestHTTPConfigValidate(t *testing.T) {
	err := guard.HTTPConfig{MaxBody: -1, Keep: []string{""}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "MaxBody") || !strings.Contains(err.Error(), "Keep") {
		t.Errorf("got %v, want both fields named", err)
	}
}
