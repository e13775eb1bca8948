package outbox_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxmem"
)

func TestServeHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, broker := outboxmem.New(), &recorder{fail: poisonous(outbox.Unavailable(errors.New("away")))}
		relay, stop := start(t, box, broker, outbox.RelayConfig{MaxAge: time.Minute})
		enqueue(t, box, outbox.Message{Topic: "t", Key: "a", Payload: []byte("poison")}, message("b", 1))
		for _, c := range []struct {
			after  time.Duration
			status int
		}{{time.Second, http.StatusOK}, {2 * time.Minute, http.StatusServiceUnavailable}} {
			time.Sleep(c.after)
			w := httptest.NewRecorder()
			relay.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
			var page struct {
				Published, Failing, Owned int
				Health                    string
			}
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.status || page.Published != 1 || page.Failing != 1 || page.Owned != 16 || (page.Health == "ok") != (c.status == 200) {
				t.Errorf("after %v: got %d and %+v, want %d", c.after, w.Code, page, c.status)
			}
		}
		stop()
	})
}

// The source is asked how full it is each RelayConfig.Gauge, and never when that is negative.
func TestGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			every time.Duration
			want  int64
		}{{0, 1}, {-1, 0}} {
			box := outboxmem.New()
			relay, stop := start(t, box, &recorder{}, outbox.RelayConfig{Gauge: c.every})
			enqueue(t, box, outbox.Message{Topic: "t", Delay: time.Hour})
			time.Sleep(20 * time.Second)
			if got := relay.Stats().Gauges; got.Scheduled != c.want || got.At.IsZero() != (c.want == 0) {
				t.Errorf("Gauge %v: got %+v, want %d scheduled", c.every, got, c.want)
			}
			enqueue(t, box, outbox.Message{Topic: "t", Delay: time.Hour})
			time.Sleep(20 * time.Second)
			if got := relay.Stats().Gauges; got.Scheduled != 2*c.want {
				t.Errorf("Gauge %v, later: got %+v, want %d scheduled", c.every, got, 2*c.want)
			}
			stop()
		}
	})
}
