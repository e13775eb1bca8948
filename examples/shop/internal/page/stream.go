package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"sync"
	"time"
)

// Period is the time between two updates.
const Period = 500 * time.Millisecond

const (
	heartbeat = 15 * time.Second // a comment this often keeps proxies from closing a quiet stream
	patience  = 5 * time.Second  // a viewer that takes longer to read an update is dropped; its browser connects again
)

// frame is the page at one moment, rendered and encoded once for all viewers.
type frame struct {
	seq      int64         // its period's number
	prev     int64         // that of the frame before
	ready    chan struct{} // closed when the rest is set
	snapshot Snapshot
	title    string
	parts    map[string]template.HTML
	full     []byte // every part
	delta    []byte // the parts that differ from the frame before; nil: none does
}

func (f *frame) order(id string) (Order, bool) {
	for _, o := range f.snapshot.Orders {
		if o.ID == id {
			return o, true
		}
	}
	return Order{}, false
}

// frames makes a frame when somebody asks for one and the last is of an earlier period. Whoever asks first renders it, the others wait
// for that; so it needs no goroutine, and costs nothing while nobody looks.
type frames struct {
	period time.Duration
	boot   string // tells this process's frames from those of the one before
	render func() (Snapshot, string, map[string]template.HTML)

	mu    sync.Mutex
	last  *frame // guarded by mu; its contents by ready
	acted int64  // the period in which a form last changed something; guarded by mu
}

// act notes that the frame of this period is out of date.
func (s *frames) act() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acted = s.number()
}

func (s *frames) number() int64 { return time.Now().UnixNano() / int64(s.period) }

// fresh returns the frame of this period, or after a form one rendered for this reader alone: the redirect leads back within the form's
// period, and must not show what was before. Streams keep to one frame a period. Of what it returns only the snapshot, title and parts are set.
func (s *frames) fresh() *frame {
	s.mu.Lock()
	stale := s.acted == s.number()
	s.mu.Unlock()
	if !stale {
		return s.now()
	}
	var f frame
	f.snapshot, f.title, f.parts = s.render()
	return &f
}

// now returns the frame of this period.
func (s *frames) now() *frame {
	seq := s.number()
	s.mu.Lock()
	f, prev := s.last, s.last
	mine := f == nil || f.seq < seq
	if mine {
		f = &frame{seq: seq, ready: make(chan struct{})}
		s.last = f
	}
	s.mu.Unlock()
	if !mine {
		<-f.ready
		return f
	}

	defer close(f.ready)
	f.snapshot, f.title, f.parts = s.render()
	f.full = s.encode(f, f.parts)
	if prev != nil {
		<-prev.ready
		f.prev = prev.seq
		changed := make(map[string]template.HTML)
		for name, part := range f.parts {
			if prev.parts[name] != part {
				changed[name] = part
			}
		}
		if len(changed) > 0 {
			f.delta = s.encode(f, changed)
		}
	}
	return f
}

// update is what a viewer's script reads.
type update struct {
	Boot  string                   `json:"boot"`
	Seq   int64                    `json:"seq"`
	At    time.Time                `json:"at"`
	Title string                   `json:"title"`
	Parts map[string]template.HTML `json:"parts"`
}

func (s *frames) encode(f *frame, parts map[string]template.HTML) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b) // writes no line break but the last
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(update{s.boot, f.seq, f.snapshot.At, f.title, parts}); err != nil {
		panic(err) // strings and a time
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// parts serves a whole frame, for viewers without a stream.
func (p *page) parts(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(p.frames.now().full)
}

// live streams frames: the first one whole, then what changes. A viewer that missed some is told so and gets a whole one again; one that does
// not read is dropped.
func (p *page) live(w http.ResponseWriter, r *http.Request) {
	select {
	case p.seats <- struct{}{}:
		defer func() { <-p.seats }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d viewers already; poll parts.json", cap(p.seats)), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	control := http.NewResponseController(w)
	send := func(format string, args ...any) bool {
		_ = control.SetWriteDeadline(time.Now().Add(patience)) // a writer without deadlines still has the request's context
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	if !send("retry: 1000\n\n") {
		return
	}
	var seen int64
	sent := time.Now()
	for {
		f := p.frames.now()
		ok, said := true, true
		switch {
		case seen == 0:
			ok = send("id: %d\nevent: parts\ndata: %s\n\n", f.seq, f.full)
		case seen < f.prev:
			ok = send("event: gap\ndata: {\"after\":%d}\n\nid: %d\nevent: parts\ndata: %s\n\n", seen, f.seq, f.full)
		case f.seq > seen && f.delta != nil:
			ok = send("id: %d\nevent: parts\ndata: %s\n\n", f.seq, f.delta)
		case time.Since(sent) >= heartbeat:
			ok = send(": still here\n\n")
		default: // nothing changed
			said = false
		}
		if !ok {
			return
		}
		if seen = f.seq; said {
			sent = time.Now()
		}
		if !p.wait(r, f.seq) {
			return
		}
	}
}

// wait waits for the period after seq. It returns false when the request is over.
func (p *page) wait(r *http.Request, seq int64) bool {
	next := time.Unix(0, (seq+1)*int64(p.frames.period))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
