package orders

import (
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// The bars of a timeline are read from the saga's log.
func TestSteps(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	log := []saga.Entry{
		{Seq: 1, Event: saga.EventStart, Next: []string{"+accept#1"}, At: at(0)},
		{Seq: 2, Event: saga.EventDone, Step: "accept", Op: saga.Action, Attempt: 1, Next: []string{"+reserve#1"}, At: at(1)},
		{Seq: 3, Event: saga.EventRetry, Step: "reserve", Op: saga.Action, Attempt: 1, Next: []string{"+reserve#2"}, At: at(2)},
		{Seq: 4, Event: saga.EventFailed, Step: "reserve", Op: saga.Action, Attempt: 2, Next: []string{"-accept#1"}, At: at(5)},
	}
	got := steps(log, func(saga.Entry) string { return "busy" })
	want := []Step{
		{Name: "accept", State: "done", Started: at(0), Ended: at(1), Attempts: 1},
		{Name: "reserve", State: "failed", Started: at(1), Ended: at(5), Attempts: 2, Error: "busy"},
		{Name: "accept", Undo: true, State: "running", Started: at(5), Attempts: 1},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("step %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	if waiting := steps(log[:3], func(saga.Entry) string { return "busy" })[1]; waiting.State != "waiting" || waiting.Error != "busy" || waiting.Attempts != 2 {
		t.Errorf("between two attempts: got %+v, want it to say why it waits", waiting)
	}
}
