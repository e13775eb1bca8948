package saga_test

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
)

// goroutine names the one that calls it.
func goroutine() string {
	name, _, _ := bytes.Cut(bytes.TrimPrefix(stack(), []byte("goroutine ")), []byte(" "))
	return string(name)
}

func stack() []byte {
	buf := make([]byte, 64)
	return buf[:runtime.Stack(buf, false)]
}

// TestDriversAreKept: sagas that follow one another are driven by one goroutine, the stack of which has grown; one whose body ended its
// goroutine leaves none behind; and once Run has returned, none waits any more, which the bubble checks.
func TestDriversAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var by []string
		d := saga.Must(saga.Define("d", 1, func(b *saga.Builder[string]) {
			saga.Step(b, "a", func(_ *saga.Ctx, in string) (int, error) {
				by = append(by, goroutine())
				if in == "goexit" {
					runtime.Goexit()
				}
				return 0, nil
			}, saga.Attempts(1)).NothingToUndo("nothing is done")
		}))
		e := run(t, sagamem.New(), saga.Register(d), saga.Config{Poll: time.Hour})
		for _, key := range []string{"1", "2", "goexit", "3", "4"} {
			if err := e.Wait(t.Context(), start(t, d, e, key, key)); (err != nil) != (key == "goexit") {
				t.Errorf("saga %s: got %v", key, err)
			}
			synctest.Wait()
		}
		if by[0] != by[1] || by[1] != by[2] {
			t.Errorf("sagas one after another were driven by goroutines %v, want one for the first three", by)
		}
		if by[3] == by[2] || by[3] != by[4] {
			t.Errorf("sagas after the end of a goroutine were driven by %v, want another one for the last two", by)
		}
		e.end(t)
	})
}
