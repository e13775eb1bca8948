package retry

import (
	"context"
	"iter"

	"github.com/backstay-go/backstay"
)

// Loop makes the attempts of one call a loop: the body is an attempt, and what it leaves in err says how it ended.
//
//	var err error
//	for attempt := range r.Loop(ctx, &err) {
//		item, err = fetch(attempt, id) // attempt is a context
//	}
//	return item, err
//
// The value of the loop is the context of the attempt and tells its number ([backstay.Call.Attempt]) and why the one before it failed
// ([backstay.Call.Previous]). Before each attempt err is set to nil. When the body ends with nil, the loop ends; with an error, marked by [backstay.Permanent]
// and its like or not, the loop goes on as a call of [backstay.Do] would, waits included. When it gives up, err becomes what Do would return. A break or return
// from the body ends the loop and leaves err alone. When ctx is over already, the body does not run and err says so.
//
// A nil *Retry makes one attempt. err must not be nil. The sequence may be ranged over again: that is another call.
func (r *Retry) Loop(ctx context.Context, err *error, opts ...backstay.CallOption) iter.Seq[*backstay.Call] {
	return func(yield func(*backstay.Call) bool) {
		var info backstay.CallInfo
		for _, o := range opts {
			o(&info)
		}
		var pipeline *backstay.Pipeline
		if r != nil {
			pipeline = r.loop
		}
		more := true
		body := backstay.Handler(func(_ context.Context, attempt *backstay.Call) backstay.Outcome {
			*err = nil
			if more = yield(attempt); !more {
				return backstay.Outcome{Class: backstay.Neutral, Again: backstay.No}
			}
			return backstay.Outcome{Err: *err}
		})
		out := pipeline.Handle(ctx, info, body)
		if more {
			*err = out.Err
		}
	}
}
