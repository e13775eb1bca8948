package grpcclient

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/adaptive"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// statusError is an error of a policy with the status that gRPC wants of one. It reads as a status, and errors.Is and errors.As see the error
// inside.
type statusError struct {
	status *status.Status
	err    error
	unsent bool
}

// Error returns, for example, `rpc error: code = Unavailable desc = breaker "dns:///inventory": open, retry in 4.2s`.
func (e *statusError) Error() string { return e.status.String() }

// GRPCStatus is how package status reads it.
func (e *statusError) GRPCStatus() *status.Status { return e.status }

// Unwrap returns the policy's error.
func (e *statusError) Unwrap() error { return e.err }

// NeverSent reports whether nothing of any attempt has left this process, so that the call had no effect. Package saga asks for it: the step then needs no undo.
func (e *statusError) NeverSent() bool { return e.unsent }

// asStatus returns err as a status, unless it is one. A call that its caller has ended has the status of that.
func asStatus(err error, caller context.Context) error {
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok || err == nil {
		return err
	}
	if ended := caller.Err(); ended != nil && !errors.As(err, new(*timeout.Error)) {
		p := Status(err).Proto() // with the details of the last real ending
		p.Code = int32(status.FromContextError(ended).Code())
		return &statusError{status: status.FromProto(p), err: err}
	}
	return &statusError{status: Status(err), err: err}
}

// Status returns the status of any error of this library, of a status, or of a context:
//
//	breaker open, throttled                           Unavailable
//	bulkhead full, rate limited, adaptive limit       ResourceExhausted
//	a timeout, too little time left                   DeadlineExceeded
//	retry exhausted                                   that of the last attempt, with its details
//	a context's end                                   Canceled, DeadlineExceeded
//	a value of the wrong type                         Internal
//	anything else                                     Unknown
//
// A retry whose budget is empty has the status of the last attempt too: that one was made, and a client without a retry would have seen it.
// A nil err is OK.
func Status(err error) *status.Status {
	if st, ok := status.FromError(err); ok && err != nil {
		if _, direct := err.(interface{ GRPCStatus() *status.Status }); direct {
			return st
		}
	}
	switch e := err.(type) {
	case nil:
		return status.New(codes.OK, "")
	case *timeout.Error:
		text := e.Error()
		if e.Err != nil {
			text += ": " + Status(e.Err).Message()
		}
		return status.New(codes.DeadlineExceeded, text)
	case *retry.ExhaustedError:
		return exhausted(e)
	case *backstay.Rejected:
		return status.New(refusal(e), e.Error())
	case interface{ Unwrap() []error }: // of attempts beside each other, or of a refusal and the end of the wait for it
		if all := e.Unwrap(); len(all) > 0 {
			i := max(0, slices.IndexFunc(all, func(in error) bool { return !errors.Is(in, backstay.ErrRejected) }))
			return withText(Status(all[i]), err.Error())
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, retry.ErrBudget):
		return status.New(codes.ResourceExhausted, err.Error())
	case errors.Is(err, backstay.ErrType):
		return status.New(codes.Internal, err.Error())
	}
	if in := errors.Unwrap(err); in != nil {
		return withText(Status(in), err.Error())
	}
	return status.New(codes.Unknown, err.Error())
}

// exhausted keeps the status of the last attempt, but for a context that ended the wait.
func exhausted(e *retry.ExhaustedError) *status.Status {
	last := e.Err
	if last == nil {
		last = e.Cause
	}
	st := Status(last)
	told := *e
	if e.Err != nil {
		told.Err = errors.New(st.Message())
	}
	p := withText(st, told.Error()).Proto()
	switch {
	case errors.Is(e.Cause, backstay.ErrRejected):
	case errors.Is(e.Cause, context.Canceled):
		p.Code = int32(codes.Canceled)
	case errors.Is(e.Cause, context.DeadlineExceeded):
		p.Code = int32(codes.DeadlineExceeded)
	}
	return status.FromProto(p)
}

// withText returns st with another message.
func withText(st *status.Status, text string) *status.Status {
	p := st.Proto()
	p.Message = text
	return status.FromProto(p)
}

// refusal returns the code for a refusal by a policy.
func refusal(r *backstay.Rejected) codes.Code {
	switch {
	case errors.Is(r, breaker.ErrOpen), errors.Is(r, adaptive.ErrThrottled):
		return codes.Unavailable
	case errors.Is(r, timeout.ErrNoTime):
		return codes.DeadlineExceeded
	}
	return codes.ResourceExhausted
}
