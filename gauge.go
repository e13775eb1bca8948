package backstay

import "strconv"

// GaugeKind says what a [Gauge] is a number of.
type GaugeKind uint8

const (
	GaugeState   GaugeKind = iota + 1 // breakers in the state that State names
	GaugeInUse                        // permits taken: calls in flight
	GaugeWaiting                      // calls that wait for a permit or a token
	GaugeLimit                        // permits in all; none is told where there is no limit
	GaugeTokens                       // tokens left: of a retry budget, of a rate limit
)

var gaugeNames = [...]string{"", "state", "in use", "waiting", "limit", "tokens"}

// String returns the kind in lower case.
func (k GaugeKind) String() string {
	if int(k) < len(gaugeNames) {
		return gaugeNames[k]
	}
	return "gauge " + strconv.Itoa(int(k))
}

// Gauge is one number of a policy's state at one moment. Numbers of one kind, policy and key add up where several instances serve
// the same key.
type Gauge struct {
	Kind   GaugeKind
	Policy string // the kind of policy: "breaker", "budget"
	Name   string // the policy's name, as its Config gave it
	Key    string // the state key, of an instance in a [Keyed]
	State  string // of GaugeState, the state; few distinct values
	Value  float64
}

// Gauged is the optional ability of a [Policy] to be asked for the numbers that no event carries: the state of a breaker, the permits in
// use, the tokens left. Package telemetry asks when metrics are collected, and its health report when it is asked itself.
type Gauged interface {
	// Gauges calls tell with each number as it stands now. It changes nothing, must be quick, and may be called at any time.
	Gauges(tell func(Gauge))
}

// Gauges implements [Gauged]: the numbers of all policies, outermost first.
func (p *Pipeline) Gauges(tell func(Gauge)) {
	if p == nil {
		return
	}
	for _, policy := range p.policies {
		if g, ok := policy.(Gauged); ok {
			g.Gauges(tell)
		}
	}
}

// Gauges implements [Gauged]: the numbers of every instance, with its key.
func (k *Keyed[P]) Gauges(tell func(Gauge)) {
	if k == nil {
		return
	}
	for key, p := range k.All() {
		if g, ok := any(p).(Gauged); ok {
			g.Gauges(func(n Gauge) {
				if n.Key == "" {
					n.Key = key
				}
				tell(n)
			})
		}
	}
}
