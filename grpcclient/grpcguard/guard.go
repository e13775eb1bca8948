package grpcguard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/backstay-go/backstay/saga/guard"
)

// The metadata that carry a call, as grpcclient sends them from a saga's step, and the trailer that says what the guard did.
const (
	KeyMetadata   = "idempotency-key"
	OpMetadata    = "saga-op"
	EpochMetadata = "saga-epoch"
	// GuardTrailer is "ran", "replayed", "nothing", "running" or "poisoned".
	GuardTrailer = "saga-guard"
)

// Config changes what [Unary] does. The zero value is ready.
type Config struct {
	// MaxReply is the largest answer that is stored, in bytes: the encoded reply, or the encoded status of an error that is final. 0: 64 KiB; most guard.MaxResult/2. A
	// larger one fails with INTERNAL, and its transaction is rolled back: what could not be replayed is not done.
	MaxReply int
	// Keyless lets calls without a key through, unguarded and without a transaction. Otherwise they get INVALID_ARGUMENT.
	Keyless bool
	// Guarded says which methods are, by their full name "/package.Service/Method". nil: all but those whose .proto says
	// NO_SIDE_EFFECTS (option idempotency_level), and those of gRPC's health, reflection and channelz services.
	Guarded func(method string) bool
	// Scope names whose keys these are, such as the authenticated caller's tenant; it is put before the key, so that nobody reads an answer of
	// somebody else by guessing. nil: all callers share one space.
	Scope func(ctx context.Context, method string) string
	// Final are codes of the handler's that are answers for good: they commit whatever the handler did in its transaction, and are stored with message and
	// details. None by default. For a saga's step it is better to leave a no unstored: its undo then finds that nothing happened.
	Final []codes.Code
}

// Validate returns all faults of c.
func (c Config) Validate() error {
	var errs []error
	if c.MaxReply < 0 || c.MaxReply > guard.MaxResult/2 {
		errs = append(errs, fmt.Errorf("grpcguard: Config.MaxReply is %d; it must be 0 to %d", c.MaxReply, guard.MaxResult/2))
	}
	for _, code := range c.Final {
		if code == codes.OK || code > codes.Unauthenticated {
			errs = append(errs, fmt.Errorf("grpcguard: Config.Final: %v is no code of an error", code))
		}
	}
	return errors.Join(errs...)
}

// errRollback carries the handler's error out of the transaction.
var errRollback = errors.New("grpcguard: the handler failed")

// Unary returns an interceptor that runs the handlers of guarded methods at most once for each key and op, in transactions of run. The package documentation has the table of
// answers. It panics if cfg is not valid.
func Unary(run guard.Runner, cfg Config) grpc.UnaryServerInterceptor {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	if cfg.MaxReply == 0 {
		cfg.MaxReply = 64 << 10
	}
	if cfg.Guarded == nil {
		cfg.Guarded = guarded
	}
	return (&interceptor{run: run, cfg: cfg}).intercept
}

type interceptor struct {
	run guard.Runner
	cfg Config
}

func (g *interceptor) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !g.cfg.Guarded(info.FullMethod) {
		return handler(ctx, req)
	}
	call, err := g.call(ctx, info.FullMethod)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if call.Key == "" {
		return handler(ctx, req)
	}
	var reply any
	var failed error // the handler's; of its last run, as reply is
	a, err := g.run.Run(ctx, call, func(ctx context.Context, prior []byte) ([]byte, error) {
		ctx, err := withAction(ctx, prior)
		if err != nil {
			return nil, err
		}
		reply, failed = handler(ctx, req)
		if failed != nil && !slices.Contains(g.cfg.Final, status.Code(failed)) {
			return nil, errRollback
		}
		return encode(info.FullMethod, reply, failed, g.cfg.MaxReply)
	})
	switch {
	case errors.Is(err, errRollback):
		said(ctx, "ran")
		return nil, failed
	case err != nil:
		return nil, refuse(ctx, err)
	case a.How == guard.Ran:
		said(ctx, "ran")
		return reply, failed
	case a.How == guard.Nothing:
		said(ctx, "nothing")
		return emptyReply(info.FullMethod), nil
	}
	return replay(ctx, info.FullMethod, a.Result)
}

// call reads the metadata of a call. An empty key in the answer means that it is let through.
func (g *interceptor) call(ctx context.Context, method string) (guard.Call, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	keys, ops, epochs := md.Get(KeyMetadata), md.Get(OpMetadata), md.Get(EpochMetadata)
	switch {
	case len(keys) == 0 && g.cfg.Keyless:
		return guard.Call{}, nil
	case len(keys) != 1 || keys[0] == "":
		return guard.Call{}, fmt.Errorf("want one value of the metadata %s", KeyMetadata)
	case len(ops) > 1 || len(epochs) > 1:
		return guard.Call{}, fmt.Errorf("want at most one value each of the metadata %s and %s", OpMetadata, EpochMetadata)
	}
	c := guard.Call{Key: keys[0]}
	if len(ops) == 1 {
		c.Op = guard.Op(ops[0])
	}
	if len(epochs) == 1 {
		n, err := strconv.ParseInt(epochs[0], 10, 64)
		if err != nil || n < 0 {
			return guard.Call{}, fmt.Errorf("metadata %s: want a number", EpochMetadata)
		}
		c.Epoch = n
	}
	if g.cfg.Scope != nil {
		c.Key = g.cfg.Scope(ctx, method) + "|" + c.Key
	}
	return c, c.Validate()
}

// said tells the caller what the guard did.
func said(ctx context.Context, how string) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs(GuardTrailer, how)) // fails only outside a server
}

// refuse returns the status of a call that was not made, or of which nothing is known. The database's own words stay out of it.
func refuse(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, guard.ErrPoisoned):
		said(ctx, "poisoned")
		return status.Error(codes.FailedPrecondition, guard.ErrPoisoned.Error())
	case errors.Is(err, guard.ErrRunning):
		said(ctx, "running")
		return later(codes.Aborted, guard.ErrRunning.Error())
	case errors.Is(err, guard.ErrTooLarge), errors.Is(err, errReply):
		return status.Error(codes.Internal, err.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return later(codes.Unavailable, "guard: the database did not answer; the outcome is unknown")
}

// later returns a status that says when to come again.
func later(code codes.Code, text string) error {
	st, err := status.New(code, text).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	if err != nil { // a detail that cannot be encoded, which this one can
		return status.Error(code, text)
	}
	return st.Err()
}

// guarded is the default of Config.Guarded.
func guarded(method string) bool {
	return !strings.HasPrefix(method, "/grpc.health.") && !strings.HasPrefix(method, "/grpc.reflection.") && !strings.HasPrefix(method, "/grpc.channelz.") && !harmless(method)
}
