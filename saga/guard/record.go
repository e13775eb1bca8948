package guard

import (
	"maps"
	"net/http"
	"strconv"
)

// A recorder holds an answer back until its transaction is committed.
type recorder struct {
	header http.Header // what the handler sees
	sent   http.Header // as it was when the status was written
	status int         // 0: not written yet
	body   []byte
	limit  int
	over   bool // more than limit bytes came
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status != 0 || status < 200 { // 1xx cannot be held back and mean nothing later
		return
	}
	r.status = status
	r.sent = r.header.Clone()
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		if r.header.Get("Content-Type") == "" && len(p) > 0 {
			// net/http would guess from the first write, and a replay
			// must say the same.
			r.header.Set("Content-Type", http.DetectContentType(p))
		}
		r.WriteHeader(http.StatusOK)
	}
	if r.over || len(r.body)+len(p) > r.limit {
		r.over = true
		return 0, ErrTooLarge
	}
	r.body = append(r.body, p...)
	return len(p), nil
}

// send writes the recorded answer.
func (r *recorder) send(w http.ResponseWriter, how string) {
	maps.Copy(w.Header(), r.sent)
	w.Header().Set(HeaderGuard, how)
	if r.status != http.StatusNoContent && r.status != http.StatusNotModified {
		w.Header().Set("Content-Length", strconv.Itoa(len(r.body)))
	}
	w.WriteHeader(r.status)
	w.Write(r.body)
}
