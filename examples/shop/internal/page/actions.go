package page

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The largest values that a visitor may ask for.
const (
	maxLatency = 30 * time.Second
	maxLoad    = 200 // orders a second
	maxForm    = 4096
)

func (p *page) doPreset(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func() error {
		return p.config.Actions.Preset(r.Context(), r.PostForm.Get("name"), r.PostForm.Get("on") == "true")
	})
}

func (p *page) doChaos(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func() error {
		chaos, err := readChaos(r)
		if err != nil {
			return err
		}
		return p.config.Actions.Chaos(r.Context(), r.PostForm.Get("service"), chaos)
	})
}

func (p *page) doSet(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func() error {
		what, value := r.PostForm.Get("what"), r.PostForm.Get("value")
		switch what {
		case "load":
			if n, err := strconv.ParseFloat(value, 64); err != nil || !(n >= 0 && n <= maxLoad) {
				return refused{fmt.Errorf("load %q: want a number from 0 to %d", value, maxLoad)}
			}
		case "protection", "broker", "relay":
			if value != "on" && value != "off" {
				return refused{fmt.Errorf(`%s %q: want "on" or "off"`, what, value)}
			}
		default:
			return refused{fmt.Errorf("there is no switch %q", what)}
		}
		return p.config.Actions.Set(r.Context(), what, value)
	})
}

func (p *page) doKill(w http.ResponseWriter, r *http.Request) {
	p.act(w, r, func() error { return p.config.Actions.Kill(r.Context(), r.PostForm.Get("service")) })
}

// refused is an error of the visitor's, not of the shop's.
type refused struct{ error }

// act does what a form asks for and answers: 204 or a text to the page's script, which asks for JSON; otherwise the way back to the page.
func (p *page) act(w http.ResponseWriter, r *http.Request, do func() error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err := r.ParseForm()
	if err != nil {
		err = refused{err}
	} else {
		err = do()
		p.frames.act() // also after an error, which may have come halfway
	}
	script := strings.Contains(r.Header.Get("Accept"), "application/json")
	switch {
	case err == nil && script:
		w.WriteHeader(http.StatusNoContent)
	case err == nil:
		// Not http.Redirect, which would resolve it against the path that is left after http.StripPrefix.
		w.Header().Set("Location", "../")
		w.WriteHeader(http.StatusSeeOther)
	default:
		status := http.StatusConflict
		if errors.As(err, new(refused)) {
			status = http.StatusBadRequest
		}
		if script {
			http.Error(w, err.Error(), status)
			return
		}
		w.WriteHeader(status)
		p.write(w, "problem-below", problem{err.Error(), p.assets})
	}
}

// readChaos reads a form. A field that is not there is zero.
func readChaos(r *http.Request) (Chaos, error) {
	form := r.PostForm
	chaos := Chaos{Down: form.Has("down"), Hang: form.Has("hang"), Flap: form.Has("flap")}
	for _, share := range []struct {
		name string
		to   *float64
	}{{"errors", &chaos.Errors}, {"loseReply", &chaos.LoseReply}} {
		if text := form.Get(share.name); text != "" {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || !(n >= 0 && n <= 1) {
				return Chaos{}, refused{fmt.Errorf("%s %q: want a share from 0 to 1", share.name, text)}
			}
			*share.to = n
		}
	}
	if text := form.Get("latency"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxLatency {
			return Chaos{}, refused{fmt.Errorf("latency %q: want a duration from 0 to %s", text, maxLatency)}
		}
		chaos.Latency = d
	}
	return chaos, nil
}
