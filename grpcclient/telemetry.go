package grpcclient

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/telemetry"
)

// Metrics sets how calls are measured: the client's name, and how many keys have labels of their own. Calls is RPC in any case. Without it the zero
// telemetry.Config acts; where no OpenTelemetry SDK is installed nothing is measured. New panics when c is not valid.
func Metrics(c telemetry.Config) backstay.Policy {
	return setting(func(s *settings) { s.metrics = c })
}

// NoMetrics measures nothing, as for a pipeline that telemetry.Attach has been given already.
func NoMetrics() backstay.Policy { return setting(func(s *settings) { s.noMetrics = true }) }

// NoSpans starts no logical span: attempts' spans, and what the policies do as events, then belong to the caller's span. Without it each call whose
// caller's span records has a span of its own; see package telemetry.
func NoSpans() backstay.Policy { return setting(func(s *settings) { s.noSpans = true }) }

// ResendCount returns a stats handler that numbers repeated calls: the span in the attempt's context gets backstay.resend_count for every attempt but the
// first. Give it after otelgrpc's, whose spans are the attempts'.
//
//	grpc.WithStatsHandler(otelgrpc.NewClientHandler()), grpc.WithStatsHandler(grpcclient.ResendCount())
func ResendCount() stats.Handler { return resendCount{} }

type resendCount struct{ watcher }

// TagRPC implements stats.Handler.
func (resendCount) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	telemetry.AnnotateResend(ctx)
	return ctx
}

// HandleRPC implements stats.Handler.
func (resendCount) HandleRPC(context.Context, stats.RPCStats) {}

// span starts the logical span of a call; it may be nil.
func (c *Client) span(ctx context.Context, method string, cc *grpc.ClientConn) (context.Context, *telemetry.Span) {
	if c.settings.noSpans {
		return telemetry.Events(ctx), nil
	}
	target := ""
	if cc != nil {
		target = cc.Target()
	}
	return c.spans.StartRPC(ctx, strings.TrimPrefix(method, "/"), target)
}

// errGone is the error type of a call that panicked or ended its goroutine.
const errGone = "panic"

// errorType names an error by its status, such as "UNAVAILABLE". "" leaves it to telemetry.ErrorType, as for a refusal by a policy, which is named by that.
func errorType(err error) string {
	if err == nil || errors.Is(err, backstay.ErrRejected) {
		return ""
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.OK {
		return codeName(st.Code())
	}
	return ""
}

// spanError is errorType for the end of a call.
func spanError(err error) string {
	if name := errorType(err); name != "" {
		return name
	}
	return telemetry.ErrorType(err)
}

// codeName returns the name of a code as the protocol has it, "DEADLINE_EXCEEDED", which is not what String returns.
func codeName(c codes.Code) string {
	if c == codes.Canceled {
		return "CANCELLED"
	}
	var name strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			name.WriteByte('_')
		}
		name.WriteRune(r)
	}
	return strings.ToUpper(name.String())
}
