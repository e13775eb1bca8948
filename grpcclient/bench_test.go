package grpcclient_test

import (
	"context"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/backstay-go/backstay/grpcclient"
)

// answered does with a call's context and options what gRPC does with those of a call that goes well, and no more.
func answered(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
	ctx.Deadline()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	metadata.FromOutgoingContext(ctx)
	for _, o := range opts {
		if t, ok := o.(grpc.TrailerCallOption); ok {
			*t.TrailerAddr = nil
		}
	}
	return nil
}

// BenchmarkUnaryAlone is what the standard pipeline costs around a unary call, without gRPC.
func BenchmarkUnaryAlone(b *testing.B) {
	req, reply := &emptypb.Empty{}, &emptypb.Empty{}
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := answered(b.Context(), "/a.B/C", req, reply, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("backstay", func(b *testing.B) {
		c := grpcclient.New()
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Unary(b.Context(), "/a.B/C", req, reply, nil, answered); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// tenMessages is a stream of the server's that goes well.
type tenMessages struct {
	grpc.ClientStream
	left   int
	cancel context.CancelFunc
	finish []func(error)
}

func (*tenMessages) SendMsg(any) error { return nil }
func (*tenMessages) CloseSend() error  { return nil }

func (s *tenMessages) RecvMsg(any) error {
	if s.left--; s.left >= 0 {
		return nil
	}
	s.cancel()
	for _, f := range s.finish {
		f(nil)
	}
	return io.EOF
}

// streamed does with a stream's context and options what gRPC does.
func streamed(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx.Deadline()
	metadata.FromOutgoingContext(ctx)
	s := &tenMessages{left: 10}
	ctx, s.cancel = context.WithCancel(ctx)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	default:
	}
	for _, o := range opts {
		if f, ok := o.(grpc.OnFinishCallOption); ok {
			s.finish = append(s.finish, f.OnFinish)
		}
	}
	return s, nil
}

// BenchmarkStreamAlone is what the standard pipeline costs around a stream of the server's, without gRPC.
func BenchmarkStreamAlone(b *testing.B) {
	req, reply, desc := &emptypb.Empty{}, &emptypb.Empty{}, &grpc.StreamDesc{ServerStreams: true}
	read := func(b *testing.B, open func() (grpc.ClientStream, error)) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := open()
			if err != nil {
				b.Fatal(err)
			}
			s.SendMsg(req)
			s.CloseSend()
			for err = nil; err == nil; {
				err = s.RecvMsg(reply)
			}
			if err != io.EOF {
				b.Fatal(err)
			}
		}
	}
	b.Run("bare", func(b *testing.B) {
		read(b, func() (grpc.ClientStream, error) { return streamed(b.Context(), desc, nil, "/a.B/C") })
	})
	b.Run("backstay", func(b *testing.B) {
		c := grpcclient.New()
		read(b, func() (grpc.ClientStream, error) { return c.Stream(b.Context(), desc, nil, "/a.B/C", streamed) })
	})
}
