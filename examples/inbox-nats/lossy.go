package main

import (
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
)

// lossy is a consumer whose first acknowledgement of every third message does not arrive, as when a connection breaks in that moment.
type lossy struct{ jetstream.Consumer }

func (l lossy) Messages(opts ...jetstream.PullMessagesOpt) (jetstream.MessagesContext, error) {
	messages, err := l.Consumer.Messages(opts...)
	return &lossyMessages{MessagesContext: messages}, err
}

type lossyMessages struct {
	jetstream.MessagesContext
	n atomic.Int64
}

func (m *lossyMessages) Next(opts ...jetstream.NextOpt) (jetstream.Msg, error) {
	msg, err := m.MessagesContext.Next(opts...)
	if err != nil {
		return nil, err
	}
	if meta, err := msg.Metadata(); err == nil && meta.NumDelivered == 1 && m.n.Add(1)%3 == 0 {
		return deaf{msg}, nil
	}
	return msg, nil
}

type deaf struct{ jetstream.Msg }

func (deaf) Ack() error { return nil }
