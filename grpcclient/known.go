package grpcclient

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/backstay-go/backstay"
)

// known is what table and .proto say about a method, put together once.
type known struct {
	name     string // for events: without the leading slash
	repeat   backstay.Again
	pure     bool // the .proto says that it has no side effects
	attempts int
	hedge    time.Duration
	retryOn  codeSet
	failOn   codeSet
	hinted   codeSet // repeated when the server says when
}

var (
	defaultRetryOn = setOf(codes.Unavailable)
	defaultHinted  = setOf(codes.ResourceExhausted)
	defaultFailOn  = setOf(codes.Internal, codes.Unknown, codes.DataLoss, codes.Unavailable, codes.DeadlineExceeded)
)

// methodCache keeps what is known about methods. Reading takes no lock.
type methodCache struct {
	mu  sync.Mutex // held while writing
	all atomic.Pointer[map[string]*known]
}

// mostMethods bounds the cache, for proxies that pass on whatever name they are given.
const mostMethods = 1024

// method returns what is known about a method.
func (c *Client) method(full string) *known {
	m := &c.methods
	if all := m.all.Load(); all != nil {
		if k := (*all)[full]; k != nil {
			return k
		}
	}
	k := c.settings.table.resolve(full)
	m.mu.Lock()
	defer m.mu.Unlock()
	next := map[string]*known{}
	if all := m.all.Load(); all != nil {
		if len(*all) >= mostMethods {
			return k
		}
		next = maps.Clone(*all)
	}
	next[full] = k
	m.all.Store(&next)
	return k
}

// resolve puts together what the table and the .proto say about a method.
func (m Methods) resolve(full string) *known {
	k := &known{name: full, retryOn: defaultRetryOn, hinted: defaultHinted, failOn: defaultFailOn}
	if full != "" && full[0] == '/' {
		k.name = full[1:]
	}
	k.apply(m["*"])
	switch annotated(full) {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		k.repeat, k.pure = backstay.Yes, true
	case descriptorpb.MethodOptions_IDEMPOTENT:
		k.repeat = backstay.Yes
	}
	if service, _, ok := splitMethod(full); ok {
		k.apply(m["/"+service+"/*"])
	}
	k.apply(m[full])
	return k
}

// apply lets e have the last word on what it says. It is valid.
func (k *known) apply(e Method) {
	switch e.Repeat {
	case "yes":
		k.repeat = backstay.Yes
	case "no":
		k.repeat = backstay.No
	}
	if e.Attempts != 0 {
		k.attempts = e.Attempts
	}
	if e.Hedge != 0 {
		k.hedge = e.Hedge
	}
	if e.RetryOn != nil {
		k.retryOn, _ = parseCodes(e.RetryOn)
		k.hinted = k.retryOn
	}
	if e.FailOn != nil {
		k.failOn, _ = parseCodes(e.FailOn)
	}
}

// annotated returns option idempotency_level of a method whose generated code is linked in.
func annotated(full string) descriptorpb.MethodOptions_IdempotencyLevel {
	const unknown = descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN
	service, method, ok := splitMethod(full)
	if !ok {
		return unknown
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + method))
	if err != nil {
		return unknown
	}
	o, ok := d.Options().(*descriptorpb.MethodOptions)
	if !ok {
		return unknown
	}
	return o.GetIdempotencyLevel()
}
