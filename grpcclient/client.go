package grpcclient

import (
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/standard"
	"github.com/backstay-go/backstay/telemetry"
)

// Client is a pipeline of policies, and how calls of gRPC go through it. Make one with [New]. It may serve several connections, which then share
// breakers and budgets as far as their keys are equal. Safe for concurrent use.
type Client struct {
	pipeline *backstay.Pipeline
	settings settings
	repeats  bool        // some policy may make more than one attempt
	hedges   bool        // some policy may make attempts beside each other of calls that do not ask for it
	pends    bool        // all policies handle outcomes that are Pending
	dialed   atomic.Bool // DialOptions has been asked for, so gRPC's own retry is off
	methods  methodCache
	spans    telemetry.Spans
}

// settings is what the options change.
type settings struct {
	table     Methods
	keyBy     func(target, method string) string
	trustKeys bool
	makeKeys  bool
	noSpans   bool
	noMetrics bool
	metrics   telemetry.Config
}

// New returns a client. parts are policies, outermost first, and settings ([Methods], [KeyBy], [TrustKeys], [IdempotencyKeys], [Metrics], [NoMetrics], [NoSpans]), in any mix. Without
// a policy the pipeline is that of [Standard] with the zero standard.Config. It panics with
// the error of Methods.Validate when the table is not valid.
func New(parts ...backstay.Policy) *Client {
	c := &Client{settings: settings{keyBy: ByTarget}}
	var policies []backstay.Policy
	for _, p := range parts {
		switch p := p.(type) {
		case nil:
		case setting:
			p(&c.settings)
		case Methods:
			if err := p.Validate(); err != nil {
				panic(err)
			}
			c.settings.table = c.settings.table.merged(p)
		default:
			policies = append(policies, p)
		}
	}
	if only, ok := singlePipeline(policies); ok {
		c.pipeline = only
	} else if len(policies) > 0 {
		c.pipeline = backstay.Chain(policies...)
	} else {
		c.pipeline = Standard(standard.Config{})
	}
	d := c.pipeline.Describe()
	c.repeats, c.hedges, c.pends = mayRepeat(d), mayHedge(d), d.Pends
	if !c.settings.noMetrics {
		c.settings.metrics.Calls = telemetry.RPC
		if c.settings.metrics.ErrorType == nil {
			c.settings.metrics.ErrorType = errorType
		}
		c.pipeline = telemetry.Attach(c.pipeline, c.settings.metrics)
	}
	return c
}

// singlePipeline returns the pipeline that is the only part, which then keeps its observer.
func singlePipeline(policies []backstay.Policy) (*backstay.Pipeline, bool) {
	if len(policies) != 1 {
		return nil, false
	}
	p, ok := policies[0].(*backstay.Pipeline)
	return p, ok && p != nil
}

// DialOptions returns what grpc.NewClient needs for the policies to act: the interceptors, and gRPC's own retry switched off, so that attempts do not multiply
// with a service config, and so that what became of an attempt's one stream is known without a stats handler, whose events cost a call more than the policies do. Interceptors given before these act outside the policies, once for each call;
// those given after act inside, once for each attempt.
func DialOptions(parts ...backstay.Policy) []grpc.DialOption { return New(parts...).DialOptions() }

// DialOptions is [DialOptions] for a client that is there already, to be shared between connections.
func (c *Client) DialOptions() []grpc.DialOption {
	c.dialed.Store(true)
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.Unary),
		grpc.WithChainStreamInterceptor(c.Stream),
		grpc.WithDisableRetry(),
	}
}

// Unary returns an interceptor for unary calls alone. Use grpc.WithDisableRetry() beside it, and grpc.WithStatsHandler(StatsHandler()), without which nothing is
// known of what was sent. To share policies between Unary and [Stream], make a [Client].
func Unary(parts ...backstay.Policy) grpc.UnaryClientInterceptor { return New(parts...).Unary }

// Stream returns an interceptor for streams alone. As with [Unary], it wants the stats handler and gRPC's own retry switched off.
func Stream(parts ...backstay.Policy) grpc.StreamClientInterceptor { return New(parts...).Stream }

// StatsHandler returns the handler by which attempts learn whether they were sent and answered, where that cannot be had from gRPC's own targets alone: with
// [Unary] and [Stream], where gRPC's own retry may be on. It holds nothing; one serves any number of clients.
func StatsHandler() stats.Handler { return watcher{} }

// Pipeline returns the policies in use.
func (c *Client) Pipeline() *backstay.Pipeline { return c.pipeline }

// String returns the nesting of the policies, outermost first.
func (c *Client) String() string { return c.pipeline.String() }

// Lint returns what is wrong with the order or the numbers of the policies.
func (c *Client) Lint() []backstay.Finding { return c.pipeline.Lint() }
