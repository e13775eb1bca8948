package saga

import "testing"

// TestMailWhileLeaving: an instance that is on its way out has looked for mail for the last time, but is still on the engine's list. Mail
// that is told of then would lie until the next poll if leaving did not look for it.
func TestMailWhileLeaving(t *testing.T) {
	e := New(nil)
	e.running.Store(true)
	task := e.newTask(t.Context(), Instance{ID: "a"}, 1)
	e.heard(Hint{Mail: "a"})
	task.leave()
	select {
	case <-e.wake:
	default:
		t.Error("nobody looks for the mail that came while the instance left")
	}
}
