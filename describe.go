package backstay

import (
	"fmt"
	"strings"
	"time"
)

// Description is what a policy says about itself. Fields that do not apply to a kind of policy stay zero.
type Description struct {
	Kind   string        // "breaker", "retry", "timeout", …
	Name   string        // as its Config gave it; may be empty
	Detail string        // its settings in a few words: "3 attempts, full jitter 100ms ×2 ≤ 5s"
	Limit  time.Duration // timeout: how long an attempt or a call may take
	Window time.Duration // breaker: the time window; 0 for a window of counts

	Attempts int           // retry: total attempts; negative: unlimited
	MaxDelay time.Duration // retry: the longest wait between attempts
	Unsafe   bool          // hedge: also calls that nobody has called repeatable
	Pends    bool          // any: it handles outcomes that are [Pending]

	Inner []Description // what it wraps others in itself: a pipeline's policies, the policy behind a key
}

// String returns, for example, `breaker "inventory" (50% of ≥ 20 in 30s)`.
func (d Description) String() string {
	var s strings.Builder
	s.WriteString(d.Kind)
	if d.Name != "" {
		fmt.Fprintf(&s, " %q", d.Name)
	}
	if d.Detail != "" {
		fmt.Fprintf(&s, " (%s)", d.Detail)
	}
	return s.String()
}

// describe returns what p says of itself, or its type's name.
func describe(p Policy) Description {
	if d, ok := p.(Describer); ok {
		return d.Describe()
	}
	if _, ok := p.(PolicyFunc); ok {
		return Description{Kind: "func"}
	}
	return Description{Kind: strings.TrimPrefix(fmt.Sprintf("%T", p), "*")}
}

// Finding is something about the order or the numbers of a pipeline that will not do what its author expects.
type Finding struct {
	Rule    string // a short name, stable: "attempt-timeout", "breaker-outside-retry", …
	Message string // what is wrong and what to do
}

// String returns the message with its rule.
func (f Finding) String() string { return f.Rule + ": " + f.Message }

// Lint explains what is wrong with the order or the numbers of p; nil when nothing is.
func (p *Pipeline) Lint() []Finding {
	if p == nil {
		return nil
	}
	l := linter{}
	l.walk(p.Describe().Inner)
	return l.findings
}

// linter walks policies from the outermost to the innermost.
type linter struct {
	findings []Finding
	retry    *Description   // the nearest retry outside the current policy
	retries  int            // how many there are
	hedged   bool           // a hedge stands outside
	total    *Description   // the timeout outside every retry and hedge
	outside  []*Description // breakers and limits that no retry has been seen outside of
	breakers []*Description
}

func (l *linter) add(rule, format string, args ...any) {
	l.findings = append(l.findings, Finding{Rule: rule, Message: fmt.Sprintf(format, args...)})
}

func (l *linter) walk(all []Description) {
	for i := range all {
		d := &all[i]
		switch d.Kind {
		case "retry":
			l.onRetry(d)
		case "breaker", "bulkhead", "adaptive":
			if l.retry == nil {
				l.outside = append(l.outside, d)
			}
			if d.Kind == "breaker" {
				l.breakers = append(l.breakers, d)
			}
		case "hedge":
			l.hedged = true
			if d.Unsafe {
				l.add("hedge-unsafe", "%v hedges calls that nobody has marked as repeatable; two of them will run at the same time", d)
			}
		case "timeout":
			l.onTimeout(d)
		case "transport":
			l.add("nested-transport", "a Backstay transport directly inside a Backstay transport: every policy acts twice; keep one")
		}
		l.walk(d.Inner)
	}
}

func (l *linter) onRetry(d *Description) {
	l.retries++
	if l.retries == 2 {
		l.add("nested-retry", "a retry inside a retry: their attempts would multiply, so the inner one makes a single attempt; keep one")
	}
	if l.hedged {
		l.add("retry-inside-hedge", "a retry inside a hedge: only the attempt that is first to get there is repeated; put the hedge inside the retry")
	}
	for _, o := range l.outside {
		switch o.Kind {
		case "breaker":
			l.add("breaker-outside-retry", "%v stands outside the retry and sees one ending per call, not each attempt; put it inside", o)
		default:
			l.add(o.Kind+"-outside-retry", "%v stands outside the retry and its permit is held while the retry sleeps; put it inside", o)
		}
	}
	l.outside = nil
	l.retry = d
}

func (l *linter) onTimeout(d *Description) {
	if l.retry == nil {
		if l.total == nil {
			l.total = d
		}
	} else if l.total != nil && d.Limit > 0 && l.total.Limit > 0 {
		if d.Limit >= l.total.Limit {
			l.add("attempt-timeout", "the attempt timeout of %v is not shorter than the total timeout of %v, so a timed-out attempt is never repeated", d.Limit, l.total.Limit)
		} else if n := l.retry.Attempts; n > 1 {
			if need := time.Duration(n)*d.Limit + time.Duration(n-1)*l.retry.MaxDelay; need > 4*l.total.Limit {
				l.add("total-timeout", "%d attempts of %v with waits of up to %v may take %v, far over the total timeout of %v: the last attempts will never start",
					n, d.Limit, l.retry.MaxDelay, need, l.total.Limit)
			}
		}
	}
	for _, b := range l.breakers {
		if b.Window > 0 && d.Limit > 0 && b.Window < 2*d.Limit {
			l.add("breaker-window", "the window of %v is shorter than twice the attempt timeout of %v: too few endings fall into it when every attempt times out", b, d.Limit)
		}
	}
}
