package grpcclient

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
)

// classify says what the ending err of the attempt a counts as. ctx is what the attempt was bounded by. The table is in the package documentation.
func (x *exchange) classify(ctx context.Context, a *attempt, err error) backstay.Outcome {
	if err == nil {
		return backstay.Outcome{Class: backstay.Success, Sent: backstay.SentYes, Answered: true}
	}
	out := x.judge(ctx, a, err)
	if out.Sent == backstay.SentNever {
		x.doubt.Add(-1)
		x.counts.NeverSent()
	}
	return out
}

// judge is classify for an attempt that failed.
func (x *exchange) judge(ctx context.Context, a *attempt, err error) backstay.Outcome {
	out := backstay.Outcome{Err: err, Class: backstay.Neutral, Again: backstay.No}
	if errors.Is(err, backstay.ErrRejected) { // by a policy inside this client; another client may have sent an attempt before
		var all interface{ NeverSent() bool }
		if !errors.As(err, &all) || all.NeverSent() {
			out.Sent = backstay.SentNever
		}
		return out
	}
	code := codeOf(err)
	if code == codes.DeadlineExceeded {
		awaitExpiry(ctx)
	}
	ending := code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled // may be gRPC's own word
	switch {
	case a.neverSent(x.c.dialed.Load()):
		out.Sent = backstay.SentNever
		if !ending {
			return out // a fault of this side: credentials, metadata, a compressor
		}
	case code == codes.Internal && a.unheard() && strings.Contains(status.Convert(err).Message(), "error while marshaling"):
		return out // the request could not be
	case a.has(seenOut) || x.c.dialed.Load() && a.streamed():
		out.Sent = backstay.SentYes
	}
	out.Answered = a.has(seenAnswer) || !a.has(seenBegin) && (!ending || a.answered())
	switch {
	case x.known.failOn.has(code):
		out.Class = backstay.Failure
	case code != codes.Canceled && code != codes.ResourceExhausted && out.Sent != backstay.SentNever:
		out.Class = backstay.Success
	}
	out.Shed = out.Answered && (code == codes.ResourceExhausted || code == codes.Unavailable)
	x.again(ctx, a, code, &out)
	return out
}

// hair is by how much a server may be ahead of us when it says that the deadline which we gave it has passed.
const hair = 5 * time.Millisecond

// awaitExpiry waits for the end of a context whose deadline is up: the server's timer, or gRPC's look at the clock, may come before the context's own timer, and
// what then looks like a word of the server's is our time limit.
func awaitExpiry(ctx context.Context) {
	if at, ok := ctx.Deadline(); ok && time.Until(at) <= hair {
		<-ctx.Done()
	}
}

// again says whether and when the attempt may be followed by another.
func (x *exchange) again(ctx context.Context, a *attempt, code codes.Code, out *backstay.Outcome) {
	hint := hintOf(a, out.Err)
	ours := code == codes.DeadlineExceeded && ctx.Err() != nil // the attempt timeout's; were it the total's or the caller's, the retry knows
	due := ours || x.known.retryOn.has(code) || hint.given && x.known.hinted.has(code)
	if !due || hint.stop || !x.repeat && out.Sent != backstay.SentNever {
		return
	}
	out.Again, out.Wait, out.WaitExact = backstay.Yes, hint.wait, hint.exact
}

// hint is what the server says about another attempt.
type hint struct {
	wait  time.Duration
	given bool
	exact bool // an order, also when it is 0
	stop  bool // no further attempt
}

// hintOf reads the pushback of gRFC A6 (one number that is not negative; anything else is a no) and, where there is none, google.rpc.RetryInfo.
func hintOf(a *attempt, err error) hint {
	if !a.blind && a.streamed() {
		if all, ok := a.trailer[pushbackKey]; ok {
			return pushback(all)
		}
	}
	st, ok := status.FromError(err)
	if !ok || len(st.Proto().GetDetails()) == 0 {
		return hint{}
	}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay() != nil {
			if wait := info.GetRetryDelay().AsDuration(); wait > 0 { // AsDuration keeps to the range of a Duration
				return hint{wait: wait, given: true}
			}
		}
	}
	return hint{}
}

func pushback(all []string) hint {
	if len(all) != 1 {
		return hint{stop: true}
	}
	ms, err := strconv.ParseUint(all[0], 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && ms > math.MaxInt64/uint64(time.Millisecond):
		return hint{given: true, exact: true, wait: never}
	case err != nil:
		return hint{stop: true}
	}
	return hint{given: true, exact: true, wait: time.Duration(ms) * time.Millisecond}
}

// codeOf returns the status code of an attempt's error, which an interceptor may have made.
func codeOf(err error) codes.Code {
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unknown
}
