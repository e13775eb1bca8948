package service

import (
	"context"
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"github.com/backstay-go/backstay"
)

// Note is something that happened.
type Note struct {
	N       int       `json:"n"` // counts up from 1 within a process
	At      time.Time `json:"at"`
	Service string    `json:"service"`
	Level   string    `json:"level"` // "info", "warn" or "bad"
	Text    string    `json:"text"`
}

// feedLength is how many notes are kept.
const feedLength = 100

// Feed keeps the newest notes of a service.
type Feed struct {
	service string

	mu    sync.Mutex
	n     int    // guarded by mu, as is notes
	notes []Note // oldest first
}

// Info, Warn and Bad add a note.
func (f *Feed) Info(format string, args ...any) { f.add("info", format, args) }

// Warn adds a note about something to look at.
func (f *Feed) Warn(format string, args ...any) { f.add("warn", format, args) }

// Bad adds a note about something that ought not to be.
func (f *Feed) Bad(format string, args ...any) { f.add("bad", format, args) }

func (f *Feed) add(level, format string, args []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	if len(f.notes) == feedLength {
		f.notes = append(f.notes[:0], f.notes[1:]...)
	}
	f.notes = append(f.notes, Note{f.n, time.Now(), f.service, level, fmt.Sprintf(format, args...)})
}

// After returns the notes with a number above n, oldest first.
func (f *Feed) After(n int) []Note {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := len(f.notes)
	for i > 0 && f.notes[i-1].N > n {
		i--
	}
	return append([]Note{}, f.notes[i:]...)
}

// Breaker returns an observer that notes what breakers to another service do.
func (f *Feed) Breaker(to string) backstay.Observer {
	return backstay.ObserverFunc(func(_ context.Context, e backstay.Event) {
		if e.Kind != backstay.EventState || e.Policy != "breaker" {
			return
		}
		switch e.To {
		case "open":
			f.Warn("breaker to %s opened: %s", to, e.Reason)
		case "closed":
			f.Info("breaker to %s closed", to)
		}
	})
}

// quiet swallows what net/http says about connections that were broken on purpose.
var quiet = log.New(io.Discard, "", 0)
