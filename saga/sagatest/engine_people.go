package sagatest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/saga"
)

var peopleCases = []engineCase{
	{"Resolve closes a parked saga with who and why", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", func(*saga.Ctx) error { return saga.Park(errNo) })
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.is(l.wait(p, id), errNo)
		l.state(d, id, saga.ParkedFwd)
		op := p.Operator()
		if op.Resolve(l.Context(), id, saga.By{}) == nil {
			l.Fatal("an empty actor was taken")
		}
		l.is(op.Resolve(l.Context(), id, ann), nil)
		l.is(op.Resolve(l.Context(), id, ann), saga.ErrTerminal)
		l.over(p)
		l.state(d, id, saga.Resolved)
		last := l.history(id)
		if e := last[len(last)-1]; e.Actor != "ann" || d.Text(e) != ann.Reason || e.Verb != saga.VerbResolve {
			l.Fatalf("got %+v", e)
		}
	}},
	{"SkipWith goes on with a value; CompensateNow gives up", func(l *lab) {
		for _, skip := range []bool{true, false} {
			l.w, l.store = World{}, l.kit.Open(l.T)
			d := define("order", 1, func(b *saga.Builder[int]) {
				first := act(l, b, "a", func(*saga.Ctx) error { return saga.Park(errNo) })
				draft(l, b, "b", func(c *saga.Ctx) error {
					if got := first.Get(c); got != "by hand" {
						l.Errorf("got %q, want the operator's value", got)
					}
					return nil
				}, saga.Needs(first)).Pivot()
			})
			p := l.run(saga.Register(d))
			id := begin(l, d, p, "k", 1)
			l.wait(p, id)
			if skip {
				l.is(p.Operator().SkipWith(l.Context(), id, "by hand", ann), nil)
				l.in(id, saga.Completed)
			} else {
				l.is(p.Operator().CompensateNow(l.Context(), id, ann), nil)
				l.in(id, saga.Compensated)
				l.order("+a -a")
			}
			l.over(p)
		}
	}},
	{"signals: one before the wait, one twice, one to a finished saga", func(l *lab) {
		let := make(chan struct{})
		d := define("order", 1, func(b *saga.Builder[int]) {
			act(l, b, "a", func(*saga.Ctx) error { <-let; return nil })
			one := saga.Wait[string](b, "one", "go")
			two := saga.Wait[string](b, "two", "go")
			draft(l, b, "b", func(c *saga.Ctx) error {
				if one.Get(c) != "first" || two.Get(c) != "second" {
					l.Errorf("got %q and %q, want first and second", one.Get(c), two.Get(c))
				}
				return nil
			}, saga.Needs(one, two)).Pivot()
		})
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", 1)
		l.is(p.Signal(l.Context(), id, "go", "first", "s1"), nil)
		l.is(p.Signal(l.Context(), id, "go", "again", "s1"), nil)
		close(let)
		l.in(id, saga.Waiting)
		l.is(p.Signal(l.Context(), id, "go", "first", "s1"), nil)
		l.is(p.Signal(l.Context(), id, "stop", "x", "s1"), saga.ErrSignalUnknown)
		l.is(p.Signal(l.Context(), "00000000-0000-7000-8000-00000000ffff", "go", "x", "s1"), saga.ErrNotFound)
		l.is(p.Signal(l.Context(), id, "go", "second", "s2"), nil)
		l.is(l.wait(p, id), nil)
		l.is(p.Signal(l.Context(), id, "go", "late", "s3"), saga.ErrTerminal)
		l.over(p)
		l.state(d, id, saga.Completed)
	}},
	{"versions: without its version an instance is listed and health fails; with it, it finishes", func(l *lab) {
		make3 := func(extra bool) *saga.Definition[int] {
			return define("order", 3, func(b *saga.Builder[int]) {
				act(l, b, "a", nil)
				saga.Wait[string](b, "wait", "go")
				if extra {
					act(l, b, "extra", nil)
				}
				act(l, b, "b", nil)
			})
		}
		v3 := make3(false)
		v4 := define("order", 4, func(b *saga.Builder[int]) { act(l, b, "new", nil) })
		p := l.run(saga.Register(v3))
		id := begin(l, v3, p, "k", 1)
		l.in(id, saga.Waiting)
		l.is(p.Health(l.Context()), nil)
		l.over(p)
		p = l.run(saga.Register(v4))
		l.is(p.Health(l.Context()), saga.ErrUnclaimable)
		list, err := p.List(l.Context(), p.Unclaimable())
		if err != nil || len(list) != 1 || list[0].ID != id {
			l.Fatalf("got %v, %v", list, err)
		}
		l.is(p.Signal(l.Context(), id, "go", "x", "s"), saga.ErrUnclaimable)
		l.over(p)
		other := saga.New(l.store, saga.Register(make3(true)))
		l.is(other.Run(l.Context()), saga.ErrShape)
		p = l.run(saga.Register(v3, v4))
		l.is(p.Signal(l.Context(), id, "go", "x", "s"), nil)
		l.is(l.wait(p, id), nil)
		l.over(p)
		l.state(v3, id, saga.Completed)
	}},
	{"semantic locks: held to the end, kept while parked", func(l *lab) {
		var stop atomic.Bool
		stop.Store(true)
		d := define("order", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(c *saga.Ctx, _ int) (int, error) { return 0, c.Lock("order/42") },
				saga.Attempts(1)).NothingToUndo("a lock ends with the saga")
			act(l, b, "b", func(*saga.Ctx) error {
				if stop.Load() {
					return saga.Park(errNo)
				}
				return nil
			})
		})
		p := l.run(saga.Register(d))
		holder := begin(l, d, p, "k1", 1)
		l.wait(p, holder)
		l.state(d, holder, saga.ParkedFwd)
		second := begin(l, d, p, "k2", 1)
		l.is(l.wait(p, second), saga.ErrLocked)
		l.state(d, second, saga.Compensated)
		stop.Store(false)
		l.is(p.Operator().Retry(l.Context(), holder, ann), nil)
		l.in(holder, saga.Completed)
		l.is(l.wait(p, begin(l, d, p, "k3", 1)), nil)
		l.over(p)
	}},
}

var keepCases = []engineCase{
	{"retention and the same key again: no old result is replayed", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) { act(l, b, "a", nil) })
		p := l.run(saga.Register(d))
		old := begin(l, d, p, "k", 1)
		l.is(l.wait(p, old), nil)
		l.until("it is deleted", func() bool {
			n, err := p.Retain(l.Context(), time.Millisecond)
			l.is(err, nil)
			return n == 1
		})
		id := begin(l, d, p, "k", 2)
		if id == old {
			l.Fatal("the old instance answered")
		}
		l.is(l.wait(p, id), nil)
		l.order("+a +a")
		l.is(p.Erase(l.Context(), "", "order", "k"), nil)
		_, err := p.Get(l.Context(), id)
		l.is(err, saga.ErrNotFound)
		l.over(p)
	}},
	{"an encrypting codec leaves no plaintext of inputs, outputs, signals, errors and reasons", func(l *lab) {
		const secret = "SECRETWORD"
		d := define("order", 1, func(b *saga.Builder[string]) {
			saga.Step(b, "a", func(*saga.Ctx, string) (string, error) { return secret + "out", nil }).
				Compensate(func(*saga.Ctx, string, saga.Result[string]) error { return saga.Fail(errors.New(secret + "undo")) })
			got := saga.Wait[string](b, "w", "go")
			saga.Step(b, "b", func(c *saga.Ctx, in string) (string, error) {
				if in != secret+"in" || got.Get(c) != secret+"signal" {
					return "", saga.Park(fmt.Errorf("got %q, %q", in, got.Get(c)))
				}
				return "", saga.Fail(errors.New(secret + "error"))
			}, saga.Needs(got)).NothingToUndo("nothing")
		}, saga.WithCodec(newSealed()))
		p := l.run(saga.Register(d))
		id := begin(l, d, p, "k", secret+"in")
		l.is(p.Signal(l.Context(), id, "go", secret+"signal", "s"), nil)
		err := l.wait(p, id)
		if err == nil || !strings.Contains(err.Error(), secret+"error") {
			l.Fatalf("got %v", err)
		}
		l.state(d, id, saga.ParkedUndo)
		l.is(p.Operator().Resolve(l.Context(), id, saga.By{Actor: "ann", Reason: secret + "reason"}), nil)
		l.over(p)
		var all bytes.Buffer
		for _, e := range l.history(id) {
			fmt.Fprintf(&all, "%s%s%+v", e.Data, e.Note, e)
		}
		if l.kit.Dump != nil {
			all.Write(l.kit.Dump(l.T, l.store))
		}
		if bytes.Contains(all.Bytes(), []byte(secret)) {
			l.Fatal("plaintext in the tables")
		}
	}},
	{"bad input: too large, undecodable, NUL in an error's text: a typed error or a parked instance", func(l *lab) {
		text := define("order", 1, func(b *saga.Builder[string]) {
			saga.Step(b, "a", func(_ *saga.Ctx, in string) (string, error) {
				switch in {
				case "nul":
					return "", saga.Park(errors.New("a\x00b"))
				case "large output":
					return strings.Repeat("x", 2000), nil
				case "panic":
					panic("boom")
				}
				return in, nil
			}, saga.Backoff(time.Millisecond, time.Millisecond)).NothingToUndo("nothing")
		}, saga.MaxPayload(1000))
		number := define("order", 1, func(b *saga.Builder[int]) {
			saga.Step(b, "a", func(*saga.Ctx, int) (string, error) { return "", nil }).NothingToUndo("nothing")
		})
		_, err := text.Start(l.Context(), l.store, "large", strings.Repeat("x", 2000))
		l.is(err, saga.ErrTooLarge)
		_, err = text.Start(l.Context(), l.store, "", "x")
		if err == nil {
			l.Fatal("an empty key was taken")
		}
		_, err = text.Start(l.Context(), l.store, "a\x00b", "x")
		if err == nil {
			l.Fatal("a key with NUL was taken")
		}
		p := l.run(saga.Register(text))
		for key, want := range map[string]string{"nul": "a\x00b", "large output": "over the limit", "panic": "panic: boom"} {
			id := begin(l, text, p, key, key)
			if err := l.wait(p, id); err == nil || !strings.Contains(err.Error(), want) {
				l.Fatalf("%s: got %v, want %q in it", key, err, want)
			}
			l.state(text, id, saga.ParkedFwd)
		}
		l.over(p)
		id := begin(l, text, l.store, "undecodable", "not a number")
		p = l.run(saga.Register(number))
		l.is(l.wait(p, id), saga.ErrCodec)
		l.over(p)
		l.state(number, id, saga.ParkedFwd)
		p = l.run(saga.Register(text))
		l.is(p.Operator().Retry(l.Context(), id, ann), nil)
		l.in(id, saga.Completed)
		l.over(p)
	}},
	{"tenants and lists", func(l *lab) {
		d := define("order", 1, func(b *saga.Builder[int]) { act(l, b, "a", func(*saga.Ctx) error { return saga.Park(errNo) }) })
		p := l.run(saga.Register(d))
		one := begin(l, d, p, "k", 1, saga.Tenant("t1"), saga.Priority(5))
		two := begin(l, d, p, "k", 1, saga.Tenant("t2"))
		l.wait(p, one)
		l.wait(p, two)
		list, err := p.List(l.Context(), saga.Filter{Tenant: "t1", States: []saga.State{saga.ParkedFwd}, Step: "a"})
		if err != nil || len(list) != 1 || list[0].ID != one || list[0].Priority != 5 {
			l.Fatalf("got %+v, %v", list, err)
		}
		in, err := p.Find(l.Context(), "t2", "order", "k")
		if err != nil || in.ID != two {
			l.Fatalf("got %+v, %v", in, err)
		}
		l.over(p)
	}},
}

// sealed is a codec that encrypts with AES-GCM.
type sealed struct{ aead cipher.AEAD }

func newSealed() sealed {
	block, err := aes.NewCipher([]byte("0123456789abcdef"))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return sealed{aead}
}

func (sealed) Name() string { return "sealed" }

func (s sealed) Encode(v any) ([]byte, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce)
	return s.aead.Seal(nonce, nonce, plain, nil), nil
}

func (s sealed) Decode(data []byte, v any) error {
	n := s.aead.NonceSize()
	if len(data) < n {
		return errors.New("too short")
	}
	plain, err := s.aead.Open(nil, data[:n], data[n:], nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, v)
}
