package kafkapub

import (
	"errors"

	"github.com/backstay-go/backstay/outbox"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	// ErrBehind says that the message was not sent because an earlier one of its key failed.
	ErrBehind = errors.New("kafkapub: behind a failed message of the same key")

	// ErrBuffered says that the client holds as many unsent records as it may. The message was not sent.
	ErrBuffered = errors.New("kafkapub: the client's buffer is full")

	// ErrTopic is a fault of a topic that [Publisher.Check] found.
	ErrTopic = errors.New("kafkapub: topic not usable")

	behind = outbox.Unavailable(ErrBehind)
)

// refusal is a broker's no to the batch of records that a message was in.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refused(err error) bool {
	var r refusal
	return errors.As(err, &r)
}

// judge marks the error that a record ended with.
func (p *Publisher) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrMaxBuffered):
		return outbox.Unavailable(ErrBuffered)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID),
		errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed),
		errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.InvalidTopicException):
		return outbox.Unavailable(err)
	case p.ordered && (errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries)):
		// The client fails an idempotent record in this way only when it was never sent or answered with an
		// error that means "not written".
		return outbox.Unavailable(err)
	}
	var broker *kerr.Error
	if errors.As(err, &broker) && !broker.Retriable {
		switch broker.Code {
		case kerr.OutOfOrderSequenceNumber.Code, kerr.UnknownProducerID.Code, kerr.InvalidProducerEpoch.Code,
			kerr.InvalidProducerIDMapping.Code:
			return outbox.UnknownOutcome(err)
		}
		return refusal{err}
	}
	return outbox.UnknownOutcome(err) // the client was closed, or writes without numbers
}
