package main_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/failsafehttp"

	"github.com/backstay-go/backstay/bench/lab/storm"
	"github.com/backstay-go/backstay/budget"
	"github.com/backstay-go/backstay/httpclient"
	"github.com/backstay-go/backstay/standard"
)

const seeds = 5

// peers is for how many seeds the peers run too. Their rows change no verdict, and take three quarters of the time.
var peers = flag.Int("peers", 1, "seeds for the rows of the peers, up to 5")

// outcome is what all seeds of one scenario and strategy say.
type outcome struct {
	recovery      []int
	amplification []float64
	pre, after    []float64
	fault         []float64 // good while it lasts
	peak          int
}

func over(t *testing.T, s storm.Scenario, strategy storm.Strategy, seeds int) (o outcome) {
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		r, end := storm.Run(t, s, strategy, seed), s.FaultEnd()
		o.recovery = append(o.recovery, r.Recovery(end))
		o.amplification = append(o.amplification, r.Amplification(20, end+30))
		o.pre = append(o.pre, r.Share(5, 19))
		o.fault = append(o.fault, r.Share(20, end))
		o.after = append(o.after, r.Share(end, end+30))
		o.peak = max(o.peak, r.Peak())
	}
	for _, all := range [][]float64{o.amplification, o.pre, o.fault, o.after} {
		slices.Sort(all)
	}
	slices.Sort(o.recovery)
	return o
}

func seconds(n int) string {
	if n == storm.Never {
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
	t.Parallel()
	for _, rate := range []float64{240, 280} {
		t.Logf("%.0f calls/s (%.0f %% load), %d seeds, peers %d", rate, rate/3, seeds, *peers)
		t.Log("| strategy | recovery, s | attempts per call, 20–60 s | good, 5–19 s | good, 30–60 s | most attempts in 1 s |")
		none, got := over(t, storm.V1(rate), storm.NoRetry(), seeds), over(t, storm.V1(rate), storm.Backstay(), seeds)
		t.Logf("| no retry %v", none)
		t.Logf("| backstay %v", got)
		for _, s := range storm.Peers() {
			if testing.Short() || *peers == 0 {
				break
			}
			t.Logf("| %s %v", s.Name, over(t, storm.V1(rate), s, min(*peers, seeds)))
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
	t.Parallel()
	t.Log("| variant | strategy | recovery, s | attempts per call, 20–60 s | good, 5–19 s | good, 30–60 s | most attempts in 1 s |")
	for _, variant := range []func(float64) storm.Scenario{storm.V2, storm.V3, storm.V7} {
		for _, rate := range []float64{240, 280} {
			s := variant(rate)
			none, got := over(t, s, storm.NoRetry(), 3), over(t, s, storm.Backstay(), 3)
			t.Logf("| %s %.0f | no retry %v", s.Name, rate, none)
			t.Logf("| %s %.0f | backstay %v", s.Name, rate, got)
			if got.recovery[1] > none.recovery[1]+1 || got.recovery[1] > 5 {
				t.Errorf("%s, %.0f calls/s: recovered after %s s (median), %s without retries", s.Name, rate, seconds(got.recovery[1]), seconds(none.recovery[1]))
			}
		}
	}
}

// compare runs a variant with and without Backstay, and wants it to recover no more than a second later than no retry.
func compare(t *testing.T, s storm.Scenario, seeds int) (none, got outcome) {
	t.Helper()
	none, got = over(t, s, storm.NoRetry(), seeds), over(t, s, storm.Backstay(), seeds)
	t.Logf("| %s | no retry %v", s, none)
	t.Logf("| %s | backstay %v", s, got)
	if a, b := got.recovery[seeds/2], none.recovery[seeds/2]; a > b+1 { // Never is larger than any
		t.Errorf("%s: recovered after %s s (median), %s without retries", s, seconds(a), seconds(b))
	}
	return none, got
}

// TestChain is variant V5: three services with the same clients lie between the callers and the server that stalls.
func TestChain(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for seconds")
	}
	t.Parallel()
	for _, deadline := range []bool{false, true} {
		_, got := compare(t, storm.V5(240, deadline), 3)
		if most := got.amplification[len(got.amplification)-1]; most > 1.1 {
			t.Errorf("%.3f attempts per call at the server, want at most 1.1", most)
		}
	}
}

// TestReplicas is variant V6: half of the replicas refuse everything, and the good half must not suffer for it.
func TestReplicas(t *testing.T) {
	t.Parallel()
	for _, balanced := range []bool{false, true} {
		s := storm.V6(240, balanced)
		without, with := compare(t, s, 3)
		none, got := without.fault[1], with.fault[1]
		t.Logf("%s: good in the fault %.3f, without retries %.3f", s, got, none)
		if got < 0.99*none {
			t.Errorf("%s: %.3f of the calls were good while half of the replicas refused (median), %.3f without retries", s, got, none)
		}
	}
}

// TestPublishedCut is variant V8: the cut after which the paper's client is down for good. While it lasts at least as many calls are good as without retries; of one of
// ten seconds those that wait when it ends are still answered in time, so longer ones say more.
func TestPublishedCut(t *testing.T) {
	t.Parallel()
	s := storm.V8(1)
	for _, cut := range []struct {
		seconds int
		times   float64 // as many as without retries
	}{{10, 1}, {20, 2}, {40, 4}} {
		long := s
		long.Fault[1] = long.Fault[0] + time.Duration(cut.seconds)*time.Second
		long.Run = long.Fault[1] + 40*time.Second
		without, with := compare(t, long, 3)
		none, got := without.fault[1], with.fault[1]
		t.Logf("good while the CPU is cut for %d s: %.3f, without retries %.3f", cut.seconds, got, none)
		if got < cut.times*none {
			t.Errorf("%.3f of the calls were good while the CPU was cut for %d s (median), %.3f without retries; want %v times as many", got, cut.seconds, none, cut.times)
		}
	}
	if naive := over(t, s, storm.Resends(), 1); naive.recovery[0] != storm.Never {
		t.Errorf("the paper's client recovered after %d s, want never", naive.recovery[0])
	}
}

var seed = flag.Uint64("seed", 0, "seed of TestAnyStorm; 0: by the day")

// TestAnyStorm draws storms: load, stall, queue and the number of clients. Every run prints what makes it again. The default client recovers no more than a second
// later than one without retries, or than a client of the crowd has made three calls.
func TestAnyStorm(t *testing.T) {
	t.Parallel()
	from := *seed
	if from == 0 {
		from = 10 * uint64(time.Now().Unix()/86400) // other storms each day, and the same ones all day
	}
	draws := 4
	if testing.Short() {
		draws = 1
	}
	for n := range uint64(draws) {
		rng := rand.New(rand.NewPCG(from+n, 7))
		load := 0.70 + 0.25*rng.Float64()
		s := storm.V1(300 * load)
		stall := 5 + rng.IntN(16)
		s.Fault[1] = s.Fault[0] + time.Duration(stall)*time.Second
		s.Queue = int(300 * (0.5 + 9.5*rng.Float64()))
		s.Clients = int(math.Round(math.Exp(rng.Float64() * math.Log(500))))
		t.Logf("-args -seed %d: load %.2f, stall of %d s, queue of %.1f s of work, %d clients", from+n, load, stall, float64(s.Queue)/300, s.Clients)
		none, got := storm.Run(t, s, storm.NoRetry(), from+n), storm.Run(t, s, storm.Backstay(), from+n)
		end := s.FaultEnd()
		a, b := got.Recovery(end), none.Recovery(end)
		// Behind a short queue clients without retries are back at once. A breaker takes two probes to let all calls pass, and a client of a crowd makes the
		// third of its calls so many seconds after the stall. That is 0 with twenty clients, and 6 with 500.
		third := int(3 * float64(s.Clients) / s.Rate)
		t.Logf("recovered after %s s, %s without retries", seconds(a), seconds(b))
		if a > max(b, third)+1 {
			t.Errorf("seed %d: recovered after %s s, %s without retries, and %d s to three calls of a client", from+n, seconds(a), seconds(b), third)
		}
		attempts := got.Sum(20, end+30)
		if most := 1.1*float64(attempts.Offered) + float64(s.Clients)*(2+6); float64(attempts.Attempts) > most { // start, and one each 10 s
			t.Errorf("seed %d: %d attempts for %d calls, want at most %.0f", from+n, attempts.Attempts, attempts.Offered, most)
		}
	}
}

// TestLoneClient is a stall with one client, whose breaker lets everything back or nothing, and a queue so short that a client without retries is back at once.
func TestLoneClient(t *testing.T) {
	t.Parallel()
	s := storm.V1(225)
	s.Clients, s.Queue, s.Run = 1, 276, 45*time.Second
	for seed := range uint64(3) {
		if got := storm.Run(t, s, storm.Backstay(), seed+1).Recovery(s.FaultEnd()); got > 1 {
			t.Errorf("seed %d: recovered after %s s, want at most 1, as a client without retries is back after 0", seed+1, seconds(got))
		}
	}
}

// TestCrowd is V1 with many clients, each of which may always have some calls in flight. With 500 of them each makes half a call a second, and has seen
// little before the queue is full: docs/decisions/055.
func TestCrowd(t *testing.T) {
	t.Parallel()
	for _, crowd := range []struct{ clients, most int }{{100, 5}, {500, 8}} {
		if testing.Short() && crowd.clients > 100 {
			continue
		}
		for _, rate := range []float64{240, 280} {
			s := storm.V1(rate)
			s.Clients, s.Run = crowd.clients, 70*time.Second
			got := over(t, s, storm.Backstay(), 3)
			t.Logf("| %s, %d clients | backstay %v", s, s.Clients, got)
			if got.recovery[1] > crowd.most {
				t.Errorf("%s, %d clients: recovered after %s s (median), want at most %d", s, s.Clients, seconds(got.recovery[1]), crowd.most)
			}
			if most := got.amplification[2]; most > 1.1 {
				t.Errorf("%s, %d clients: %.3f attempts per call, want at most 1.1", s, s.Clients, most)
			}
		}
	}
}

// TestRefusals is variant V4: what clients send to a server that refuses everything.
func TestRefusals(t *testing.T) {
	t.Parallel()
	t.Log("| strategy | attempts per call at 50, 500, 5,000 calls/s |")
	strategies := []storm.Strategy{storm.Backstay()}
	if !testing.Short() {
		strategies = append(strategies, storm.Failsafe(), storm.FailsafeBudget(), storm.Retryable())
	}
	for _, s := range strategies {
		row := s.Name + " |"
		for _, rate := range []float64{50, 500, 5000} {
			scenario := storm.V4(rate)
			r := storm.Run(t, scenario, s, 1)
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
	one := func(rt http.RoundTripper) http.RoundTripper {
		return httpclient.New(rt, standard.New(standard.Config{Budget: budget.Config{Start: 1}}))
	}
	theirs := func(rt http.RoundTripper) http.RoundTripper {
		return failsafehttp.NewRoundTripper(rt, failsafehttp.NewRetryPolicyBuilder().Build())
	}
	synctest.Test(t, func(t *testing.T) {
		in, across, single, peer := nest(ours, false), nest(ours, true), nest(one, true), nest(theirs, false)
		t.Logf("attempts at the leaf under five layers: backstay %d in one process, %d across five, %d with one start token; failsafe-go %d", in, across, single, peer)
		if in > 8 {
			t.Errorf("attempts at the leaf, five layers in one process: got %d, want at most 8", in)
		}
		// Across processes no layer knows of another, and each new client brings its two start tokens: 1 + 5 × 2. See docs/decisions/004.
		if across > 11 {
			t.Errorf("attempts at the leaf, five layers in five processes: got %d, want at most 11", across)
		}
		if single > 6 {
			t.Errorf("attempts at the leaf, five layers in five processes with one start token: got %d, want at most 6", single)
		}
	})
}

// detached is a context without values.
type detached struct{ context.Context }

func (detached) Value(any) any { return nil }

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
