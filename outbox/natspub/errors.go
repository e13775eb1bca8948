package natspub

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/backstay-go/backstay/outbox"
	"github.com/nats-io/nats.go"
)

var (
	// ErrNoStream says that no stream takes the subject. The message was not stored; it is marked [outbox.ErrUnavailable],
	// because a stream may be made later.
	ErrNoStream = errors.New("natspub: no stream takes this subject")

	// ErrWindow says that a stream forgets message ids sooner than the relay may repeat a message, so that a repetition may be stored
	// twice. [Publisher.Check] reports it, marked [outbox.ErrUnavailable]: messages flow all the same.
	ErrWindow = errors.New("natspub: the stream's duplicate window is too short")

	// ErrClosed says that the publisher, or the connection under it, was closed. The message was not sent.
	ErrClosed = errors.New("natspub: closed")

	// ErrDisconnected says that there is no connection to a server: the message was not sent, or, marked
	// [outbox.ErrUnknownOutcome], the connection was lost before the confirmation came.
	ErrDisconnected = errors.New("natspub: disconnected")

	// ErrNoAnswer says that no confirmation came in time. It is marked [outbox.ErrUnknownOutcome].
	ErrNoAnswer = errors.New("natspub: no confirmation in time")

	errPending = errors.New("natspub: pending")
	errForeign = outbox.UnknownOutcome(errors.New("natspub: the answer is not a stream's confirmation"))
)

// APIError is JetStream's own refusal. The message was not stored.
type APIError struct {
	Code    int    `json:"code"`     // in the manner of HTTP
	ErrCode int    `json:"err_code"` //nolint:tagliatelle // JetStream's number for the error, and its name
	Text    string `json:"description"`
}

func (e *APIError) Error() string { return fmt.Sprintf("natspub: %s (%d)", e.Text, e.ErrCode) }

// messageExceedsMaximum is JSStreamMessageExceedsMaximumErr in nats-server's errors.json.
const messageExceedsMaximum = 10054

// outcome marks the refusal: too large is the message's own fault, a 5xx (no space, no leader, no resources) the stream's.
func (e *APIError) outcome() error {
	switch {
	case e.ErrCode == messageExceedsMaximum:
		return outbox.TooLarge(e)
	case e.Code >= 500 || e.Code == 0:
		return outbox.Unavailable(e)
	}
	return e
}

// readAnswer judges the answer to a publish. A duplicate is a success: the stream holds the message.
func readAnswer(m *nats.Msg) error {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return outbox.Unavailable(ErrNoStream)
	}
	var ack struct {
		Stream string    `json:"stream"`
		Error  *APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return errForeign
	}
	switch {
	case ack.Error != nil:
		return ack.Error.outcome()
	case ack.Stream == "":
		return errForeign
	}
	return nil
}

// sendError judges an error of the client before anything was written.
func sendError(err error) error {
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return outbox.TooLarge(err)
	case errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return outbox.Permanent(err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		return outbox.Unavailable(errors.Join(ErrClosed, err))
	}
	return outbox.Unavailable(err)
}
