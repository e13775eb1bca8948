package grpcguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/saga/guard"
)

// stored is an answer as the row keeps it.
type stored struct {
	For    string `json:"for"`              // the method
	Type   string `json:"type,omitempty"`   // the reply's message type
	Reply  []byte `json:"reply,omitempty"`  // encoded
	Status []byte `json:"status,omitempty"` // google.rpc.Status of an error that is final, encoded
}

// errReply reports a reply that cannot be stored.
var errReply = errors.New("grpcguard: cannot store the reply")

// encode makes the row's result of a handler's answer.
func encode(method string, reply any, failed error, most int) ([]byte, error) {
	s := stored{For: method}
	var err error
	if failed != nil {
		s.Status, err = proto.Marshal(status.Convert(failed).Proto())
	} else {
		m, ok := reply.(proto.Message)
		if !ok {
			return nil, fmt.Errorf("%w: it is a %T and no proto message", errReply, reply)
		}
		s.Type = string(m.ProtoReflect().Descriptor().FullName())
		s.Reply, err = proto.Marshal(m)
	}
	switch size := len(s.Reply) + len(s.Status); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errReply, err)
	case size > most:
		return nil, fmt.Errorf("%w: the answer has %d bytes, at most %d", guard.ErrTooLarge, size, most)
	}
	return json.Marshal(s)
}

// decode reads what encode wrote: a reply, or the error that was final.
func decode(result []byte) (s stored, reply proto.Message, failed error, err error) {
	if err := json.Unmarshal(result, &s); err != nil {
		return s, nil, nil, fmt.Errorf("grpcguard: stored answer: %w", err)
	}
	if s.Status != nil {
		p := &spb.Status{}
		if err := proto.Unmarshal(s.Status, p); err != nil {
			return s, nil, nil, fmt.Errorf("grpcguard: stored status: %w", err)
		}
		return s, nil, status.FromProto(p).Err(), nil
	}
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(s.Type))
	if err != nil {
		return s, nil, nil, fmt.Errorf("grpcguard: stored reply of type %s: %w", s.Type, err)
	}
	reply = t.New().Interface()
	if err := proto.Unmarshal(s.Reply, reply); err != nil {
		return s, nil, nil, fmt.Errorf("grpcguard: stored reply: %w", err)
	}
	return s, reply, nil, nil
}

// replay answers with what was stored.
func replay(ctx context.Context, method string, result []byte) (any, error) {
	s, reply, failed, err := decode(result)
	switch {
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	case s.For != method:
		return nil, status.Errorf(codes.InvalidArgument, "this %s was used for another method", KeyMetadata)
	}
	said(ctx, "replayed")
	if failed != nil {
		return nil, failed
	}
	return reply, nil
}

type actionKey struct{}

// action is what an undo's handler may know of its action.
type action struct {
	reply  proto.Message
	failed error
}

// Action returns the stored answer of the action that the running handler is to undo: its reply, or its error if that was final. ok is false when the call is no undo.
func Action(ctx context.Context) (reply proto.Message, failed error, ok bool) {
	a, ok := ctx.Value(actionKey{}).(action)
	return a.reply, a.failed, ok
}

// withAction puts the answer of the action where Action finds it.
func withAction(ctx context.Context, prior []byte) (context.Context, error) {
	if prior == nil {
		return ctx, nil
	}
	_, reply, failed, err := decode(prior)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errReply, err)
	}
	return context.WithValue(ctx, actionKey{}, action{reply, failed}), nil
}

// describe returns the descriptor of a method whose generated code is linked in, else nil.
func describe(method string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	m, _ := d.(protoreflect.MethodDescriptor)
	return m
}

// harmless reports whether a method's .proto says that it has no side effects.
func harmless(method string) bool {
	m := describe(method)
	if m == nil {
		return false
	}
	o, ok := m.Options().(*descriptorpb.MethodOptions)
	return ok && o.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// emptyReply returns an empty message of the method's reply type. Every empty message is encoded alike, as nothing, so any will do where the type is not known.
func emptyReply(method string) proto.Message {
	if m := describe(method); m != nil {
		if t, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err == nil {
			return t.New().Interface()
		}
	}
	return &emptypb.Empty{}
}
