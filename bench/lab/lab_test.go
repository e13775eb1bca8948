package lab_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/backstay-go/backstay/bench/lab"
	"github.com/backstay-go/backstay/httpclient"
)

const seeds = 5

// peers is for how many seeds the peers run too. Their rows change no verdict, and take three quarters of the time.
var peers = flag.Int("peers", 1, "seeds for the rows of the peers, up to 5")

// outcome is what all seeds of one scenario and strategy say.
type outcome struct {
	recovery      []int
	amplification []float64
	pre, after    []float64
	peak          int
}

func over(t *testing.T, s lab.Scenario, strategy lab.Strategy, seeds int) (o outcome) {
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		r := lab.Run(t, s, strategy, seed)
		o.recovery = append(o.recovery, r.Recovery(30))
		o.amplification = append(o.amplification, r.Amplification(20, 60))
		o.pre = append(o.pre, r.Share(5, 19))
		o.after = append(o.after, r.Share(30, 60))
		o.peak = max(o.peak, r.Peak())
	}
	for _, all := range [][]float64{o.amplification, o.pre, o.after} {
		slices.Sort(all)
	}
	slices.Sort(o.recovery)
	return o
}

func seconds(n int) string {
	if n == lab.Never {
		return "never"
	}
	return fmt.Sprint(n)
}

func (o outcome) String() string {
	return fmt.Sprintf("| %s–%s | %.2f–%.2f | %.1f %% | %.1f %% | %d |", seconds(o.recovery[0]), seconds(o.recovery[len(o.recovery)-1]),
		o.amplification[0], o.amplification[len(o.amplification)-1], 100*o.pre[len(o.pre)/2], 100*o.after[len(o.after)/2], o.peak)
}

// TestStall is variant V1: with their defaults clients of Backstay let the server come back within five seconds of the stall's end, add no load, and cost
// nothing before it. The peers' rows are printed beside, with -v.
func TestStall(t *testing.T) {
	for _, rate := range []float64{240, 280} {
		t.Logf("%.0f calls/s (%.0f %% load), %d seeds, peers %d", rate, rate/3, seeds, *peers)
		t.Log("| strategy | recovery, s | attempts per call, 20–60 s | good, 5–19 s | good, 30–60 s | most attempts in 1 s |")
		none, got := over(t, lab.V1(rate), lab.NoRetry(), seeds), over(t, lab.V1(rate), lab.Backstay(), seeds)
		t.Logf("| no retry %v", none)
		t.Logf("| backstay %v", got)
		for _, s := range lab.Peers() {
			if testing.Short() || *peers == 0 {
				break
			}
			t.Logf("| %s %v", s.Name, over(t, lab.V1(rate), s, min(*peers, seeds)))
		}
		if median := got.recovery[seeds/2]; median > 5 || median > none.recovery[seeds/2] {
			t.Errorf("%.0f calls/s: recovered after %v s (median), want at most 5, and no later than %v without retries", rate, seconds(median), seconds(none.recovery[seeds/2]))
		}
		if most := got.amplification[seeds-1]; most > 1.1 {
			t.Errorf("%.0f calls/s: %.3f attempts per call, want at most 1.1", rate, most)
		}
		if got.pre[seeds/2] < 0.99*none.pre[seeds/2] {
			t.Errorf("%.0f calls/s: %.4f of the calls before the stall were good, want 99 %% of %.4f", rate, got.pre[seeds/2], none.pre[seeds/2])
		}
	}
}

// TestVariants: with other queues, and with half the capacity in place of none, the default client recovers no more than a second later than one without
// retries, and where that one is slow, sooner.
func TestVariants(t *testing.T) {
	t.Log("| variant | strategy | recovery, s | attempts per call, 20–60 s | good, 5–19 s | good, 30–60 s | most attempts in 1 s |")
	for _, variant := range []func(float64) lab.Scenario{lab.V2, lab.V3, lab.V7} {
		for _, rate := range []float64{240, 280} {
			s := variant(rate)
			none, got := over(t, s, lab.NoRetry(), 3), over(t, s, lab.Backstay(), 3)
			t.Logf("| %s %.0f | no retry %v", s.Name, rate, none)
			t.Logf("| %s %.0f | backstay %v", s.Name, rate, got)
			if got.recovery[1] > none.recovery[1]+1 || got.recovery[1] > 5 {
				t.Errorf("%s, %.0f calls/s: recovered after %s s (median), %s without retries", s.Name, rate, seconds(got.recovery[1]), seconds(none.recovery[1]))
			}
		}
	}
}

// TestRefusals is variant V4: what clients send to a server that refuses everything.
func TestRefusals(t *testing.T) {
	t.Log("| strategy | attempts per call at 50, 500, 5,000 calls/s |")
	strategies := []lab.Strategy{lab.Backstay()}
	if !testing.Short() {
		strategies = append(strategies, lab.Failsafe(), lab.FailsafeBudget(), lab.Retryable())
	}
	for _, s := range strategies {
		row := s.Name + " |"
		for _, rate := range []float64{50, 500, 5000} {
			scenario := lab.V4(rate)
			r := lab.Run(t, scenario, s, 1)
			last := len(r)
			row += fmt.Sprintf(" %.2f", r.Amplification(0, last))
			if s.Name != "backstay" {
				continue
			}
			attempts, calls := 0, 0
			for _, sec := range r {
				attempts += sec.Attempts
				calls += sec.Offered
			}
			const startTokens, floorEvery = 2, 10 * time.Second
			allowed := scenario.Clients * (startTokens + int(scenario.Run/floorEvery))
			if got := float64(attempts-allowed) / float64(calls); got > 1.1 {
				t.Errorf("%.0f calls/s: %d attempts for %d calls, which is %.3f beyond start and floor; want at most 1.1", rate, attempts, calls, got)
			}
		}
		t.Logf("| %s |", row)
	}
}

// TestLayers nests clients five deep on a leaf that fails: the peers' three attempts become 243.
func TestLayers(t *testing.T) {
	leaf := func(hits *int) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			*hits++
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
		})
	}
	nest := func(wrap func(http.RoundTripper) http.RoundTripper, detach bool) (hits int) {
		rt := leaf(&hits)
		for range 5 {
			rt = wrap(rt)
			if inner := rt; detach { // another process: it knows nothing of the context
				rt = tripper(func(req *http.Request) (*http.Response, error) {
					resp, err := inner.RoundTrip(req.WithContext(context.WithoutCancel(detached{req.Context()})))
					if err != nil {
						resp = &http.Response{StatusCode: 503, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}
					}
					return resp, nil
				})
			}
		}
		resp, err := (&http.Client{Transport: rt}).Get("http://leaf.test/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return hits
	}
	ours := func(rt http.RoundTripper) http.RoundTripper { return httpclient.New(rt) }
	theirs := func(rt http.RoundTripper) http.RoundTripper {
		return failsafehttp.NewRoundTripper(rt, failsafehttp.NewRetryPolicyBuilder().Build())
	}
	synctest.Test(t, func(t *testing.T) {
		in, across, peer := nest(ours, false), nest(ours, true), nest(theirs, false)
		t.Logf("attempts at the leaf under five layers: backstay %d in one process, %d across five; failsafe-go %d", in, across, peer)
		if in > 8 {
			t.Errorf("attempts at the leaf, five layers in one process: got %d, want at most 8", in)
		}
		// Across processes no layer knows of another, and each new client brings its two start tokens: 1 + 5 × 2.
		if across > 11 {
			t.Errorf("attempts at the leaf, five layers in five processes: got %d, want at most 11", across)
		}
	})
}

// detached is a context without values.
type detached struct{ context.Context }

func (detached) Value(any) any { return nil }

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
