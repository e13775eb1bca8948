package grpc

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// BenchmarkGRPCPaired compares the clients where a machine is too noisy for one after the other: they take turns of 30 calls, and each reports the median of its
// turns over that of the bare one. ns/op is the time of a turn of all.
func BenchmarkGRPCPaired(b *testing.B) {
	addr := serve(b)
	unary := func(cl pb.BenchmarkServiceClient) error {
		_, err := cl.UnaryCall(context.Background(), request(0))
		return err
	}
	b.Run("unary", func(b *testing.B) { paired(b, addr, clients(), unary) })

	streams := slices.DeleteFunc(clients(), func(c client) bool { return !c.streams })
	b.Run("stream", func(b *testing.B) {
		paired(b, addr, streams, func(cl pb.BenchmarkServiceClient) error {
			s, err := cl.StreamingFromServer(context.Background(), request(10))
			for err == nil {
				_, err = s.Recv()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
	})
}

func paired(b *testing.B, addr string, clients []client, call func(pb.BenchmarkServiceClient) error) {
	const turn = 30
	var conns []pb.BenchmarkServiceClient
	for _, c := range clients {
		conns = append(conns, c.dial(b, addr))
	}
	times := make([][]time.Duration, len(conns))
	for round := 0; b.Loop(); round++ {
		for i := range conns {
			k := (round + i) % len(conns) // nobody is always the first
			began := time.Now()
			for range turn {
				if err := call(conns[k]); err != nil {
					b.Fatal(err)
				}
			}
			times[k] = append(times[k], time.Since(began))
		}
	}
	medians := make([]float64, len(conns))
	for k, t := range times {
		slices.Sort(t)
		medians[k] = float64(t[len(t)/2])
		b.ReportMetric(medians[k]/medians[0], clients[k].name+"/bare")
	}
}
