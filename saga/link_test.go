package saga_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// exhausted is a retry's error after several attempts.
type exhausted struct{ err error }

func (e *exhausted) Error() string  { return "exhausted: " + e.err.Error() }
func (e *exhausted) Unwrap() error  { return e.err }
func (e *exhausted) Attempted() int { return 3 }

// unsent is an error of grpcclient's.
type unsent struct {
	error
	never bool
}

func (e *unsent) NeverSent() bool { return e.never }
func (e *unsent) Unwrap() error   { return e.error }

// TestNoEffectInferred: a refusal by one of our policies and a failed dial count as no effect, so that the
// step is not undone; unless something before them may have had effect.
func TestNoEffectInferred(t *testing.T) {
	open := &backstay.Rejected{Policy: "breaker", Name: "card", Reason: "open"}
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	read := &net.OpError{Op: "read", Err: errors.New("connection reset")}
	for _, c := range []struct {
		name   string
		err    error
		takes  int
		undone bool
	}{
		{"a refusal", open, 1, false},
		{"a wrapped refusal", fmt.Errorf("charge: %w", open), 0, false},
		{"a failed dial", fmt.Errorf("post: %w", dial), 1, false},
		{"a broken connection", read, 1, true},
		{"a dial after other attempts", &exhausted{dial}, 1, true},
		{"attempts of which none was sent", fmt.Errorf("charge: %w", &unsent{&exhausted{read}, true}), 1, false},
		{"attempts of which one was", &unsent{&exhausted{read}, false}, 1, true},
		{"one that was not sent after another request", &unsent{read, true}, 2, true},
		{"a refusal after another request", open, 2, true},
		{"a refusal joined with another failure", errors.Join(open, read), 1, true},
		{"two refusals", errors.Join(open, open), 1, false},
		{"never sent, wrapped twice", fmt.Errorf("ship: %w", fmt.Errorf("call: %w", &unsent{read, true})), 1, false},
		{"never sent, a no", saga.Fail(&unsent{read, true}), 1, false},
		{"never sent, joined with a refusal", errors.Join(&unsent{read, true}, open), 1, false},
		{"never sent, joined with another failure", errors.Join(&unsent{read, true}, read), 1, true},
		{"another failure, joined with never sent", errors.Join(read, &unsent{read, true}), 1, true},
		{"perhaps sent, around a dial", &unsent{dial, false}, 1, false},
		{"never sent after other attempts", &exhausted{&unsent{read, true}}, 1, true},
		{"a promise", saga.NoEffect(read), 2, false},
		{"a promise with a no", saga.Fail(saga.NoEffect(read)), 1, false},
		{"a no", saga.Fail(read), 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				undone := false
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					saga.Step(b, "charge", func(sc *saga.Ctx, _ int) (int, error) {
						ctx := context.Context(sc)
						for i := range c.takes {
							if i > 0 {
								ctx = sc.Part(fmt.Sprint(i))
							}
							if _, err := backstay.TakeOperation(ctx); err != nil {
								t.Error(err)
							}
						}
						return 0, c.err
					}, saga.Attempts(1)).Compensate(func(*saga.Ctx, int, saga.Result[int]) error { undone = true; return nil })
				}))
				if err := sagamem.Run(t.Context(), d, 1); !errors.Is(err, c.err) {
					t.Errorf("got %v, want it to be %v", err, c.err)
				}
				if undone != c.undone {
					t.Errorf("got undone %v, want %v", undone, c.undone)
				}
			})
		})
	}
}

// TestKeys: an action and its undo have keys that differ, the same in every attempt; the first request takes the key, a second
// fails unless it is a part.
func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		note := func(ctx context.Context, want error) {
			op, err := backstay.TakeOperation(ctx)
			if !errors.Is(err, want) {
				t.Errorf("got error %v, want %v", err, want)
			}
			if err == nil {
				seen = append(seen, op.Op+" "+op.Key[37:])
			}
			if err == nil && op.Epoch != 1 {
				t.Errorf("got epoch %d, want 1", op.Epoch)
			}
		}
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) {
				inner, cancel := context.WithTimeout(c, time.Minute)
				defer cancel()
				note(inner, nil)
				note(c, saga.ErrKeyReused)
				note(c.Part("fee"), nil)
				if c.Attempt() == 1 {
					return 0, errors.New("once more")
				}
				return 0, saga.Fail(errors.New("no"))
			}).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[int]) error {
				note(c, nil)
				if c.Key() != c.ActionKey()+saga.UndoSuffix {
					t.Errorf("got key %q for the undo of %q", c.Key(), c.ActionKey())
				}
				return nil
			})
		}))
		_ = sagamem.Run(t.Context(), d, 1)
		want := []string{"action a", "action a.fee", "action a", "action a.fee", "compensate a/undo"}
		if !slices.Equal(seen, want) {
			t.Errorf("got %q, want %q", seen, want)
		}
	})
}

// TestThrough: a step's policy sees its attempts, and what it refuses leaves no trace.
func TestThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		watch := backstay.PolicyFunc(func(next backstay.Handler) backstay.Handler {
			return func(ctx context.Context, call *backstay.Call) backstay.Outcome {
				names = append(names, call.Name())
				return next(ctx, call)
			}
		})
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", noop, saga.Through(watch)).Compensate(nothing)
			saga.Step(b, "b", noop).NothingToUndo("nothing")
		}))
		if err := sagamem.Run(t.Context(), d, 1, saga.Around(watch)); err != nil {
			t.Fatal(err)
		}
		if want := []string{"d/a", "d/a", "d/b"}; !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
	})
}

// script is a transport that answers with its lines, in turn: "ok", "lost" (the connection breaks when the request is out), "away" (the other side
// cannot be reached) and "nobody" (its name is unknown, which is not tried again).
type script struct{ lines []string }

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if len(s.lines) == 0 {
		return nil, errors.New("one request too many")
	}
	line := s.lines[0]
	s.lines = s.lines[1:]
	answer := &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}
	switch line {
	case "lost":
		return nil, &net.OpError{Op: "read", Err: errors.New("connection reset")}
	case "away":
		return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	case "nobody":
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	case "elsewhere":
		answer.StatusCode = http.StatusSeeOther
		answer.Header.Set("Location", "http://elsewhere.example/")
	}
	return answer, nil
}

// TestNoEffectOfRequests: a failed dial counts as no effect only if no attempt of any request before it may have had one, a request
// without a key and an attempt within one request included.
func TestNoEffectOfRequests(t *testing.T) {
	for _, c := range []struct {
		name     string
		requests []string
		lines    []string
		tx       bool
		undone   bool
	}{
		{"nothing is sent", []string{"POST"}, []string{"nobody"}, false, false},
		{"no attempt is sent", []string{"PUT"}, []string{"away", "nobody"}, false, false},
		{"a request that only reads, before", []string{"GET", "POST"}, []string{"ok", "nobody"}, false, false},
		{"an attempt is lost, the next finds nobody", []string{"PUT"}, []string{"lost", "nobody"}, false, true},
		{"the same with a key", []string{"POST"}, []string{"lost", "nobody"}, false, true},
		{"done, and then a request that only reads fails", []string{"POST", "GET"}, []string{"ok", "nobody"}, false, true},
		{"done, and then the redirect fails", []string{"POST"}, []string{"elsewhere", "nobody"}, false, true},
		{"done without a key, and then another fails", []string{"PUT", "DELETE"}, []string{"ok", "nobody"}, false, true},
		{"a transaction is rolled back, a request is not", []string{"PUT", "DELETE"}, []string{"ok", "nobody"}, true, true},
		{"a transaction is rolled back, and nothing sent", []string{"PUT"}, []string{"nobody"}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wire := &script{lines: c.lines}
				client := &http.Client{Transport: httpclient.New(wire, retry.New(retry.Config{}), httpclient.TrustKeys())}
				body := func(sc *saga.Ctx) (int, error) {
					for _, method := range c.requests {
						req, err := http.NewRequestWithContext(sc, method, "http://card.example/", http.NoBody)
						if err != nil {
							return 0, saga.Park(err)
						}
						resp, err := client.Do(req)
						if err != nil {
							return 0, err
						}
						resp.Body.Close()
					}
					return 0, nil
				}
				undone := false
				undo := func(*saga.Ctx, int, saga.Result[int]) error { undone = true; return nil }
				d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
					if c.tx {
						sagamem.TxStep(b, "charge", func(sc *saga.Ctx, _ *sagamem.Tx, _ int) (int, error) { return body(sc) }, saga.Attempts(1)).Compensate(undo)
					} else {
						saga.Step(b, "charge", func(sc *saga.Ctx, _ int) (int, error) { return body(sc) }, saga.Attempts(1)).Compensate(undo)
					}
				}))
				if err := sagamem.Run(t.Context(), d, 1); !errors.As(err, new(*net.OpError)) {
					t.Errorf("got %v, want a failed dial", err)
				}
				if undone != c.undone || len(wire.lines) > 0 {
					t.Errorf("got undone %v with %d lines left, want %v with none", undone, len(wire.lines), c.undone)
				}
			})
		})
	}
}

// wire is a transport that notes the headers of each request.
type wire struct{ seen []string }

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	h := r.Header
	w.seen = append(w.seen, strings.Join([]string{r.Method, h.Get("Idempotency-Key"), h.Get("Saga-Op"), h.Get("Saga-Epoch")}, " "))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
}

// TestRequestCarriesKey: the first unsafe request of a body carries the step's key, its direction and the owner's epoch; one that only reads does not, and
// does not use the key up; a further one fails before it is sent, unless it is a part.
func TestRequestCarriesKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		client := &http.Client{Transport: httpclient.New(w, retry.New(retry.Config{}))}
		send := func(ctx context.Context, method string) error {
			req, err := http.NewRequestWithContext(ctx, method, "http://card.example/", http.NoBody)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		var key string
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "charge", func(c *saga.Ctx, _ int) (int, error) {
				key = c.Key()
				if err := errors.Join(send(c, "GET"), send(c, "POST"), send(c.Part("fee"), "POST")); err != nil {
					t.Error(err)
				}
				if err := send(c, "POST"); !errors.Is(err, saga.ErrKeyReused) {
					t.Errorf("the second request: got %v, want ErrKeyReused", err)
				}
				return 0, saga.Fail(errors.New("no"))
			}).Compensate(func(c *saga.Ctx, _ int, _ saga.Result[int]) error { return send(c, "POST") })
		}))
		_ = sagamem.Run(t.Context(), d, 1)
		want := []string{"GET   ", "POST " + key + " action 1", "POST " + key + ".fee action 1", "POST " + key + saga.UndoSuffix + " compensate 1"}
		if !slices.Equal(w.seen, want) {
			t.Errorf("got requests\n%q, want\n%q", w.seen, want)
		}
	})
}
