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
