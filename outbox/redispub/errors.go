package redispub

import (
	"errors"
	"net"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/redis/go-redis/v9"
)

var (
	// ErrNoStream says that the stream does not exist and was not to be made.
	ErrNoStream = errors.New("redispub: no such stream")

	// ErrReplicas says that too few replicas acknowledged in time. The primary has the message.
	ErrReplicas = errors.New("redispub: too few replicas acknowledged")

	// ErrWindow says that a stream forgets ids sooner than the relay may repeat a message.
	ErrWindow = errors.New("redispub: the stream's duplicate window is too short")

	// ErrVersion says that the server is older than the configuration needs.
	ErrVersion = errors.New("redispub: the server is too old")
)

// judge marks the error of one XADD.
func judge(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, redis.Nil) { // NOMKSTREAM
		return outbox.Unavailable(ErrNoStream)
	}
	if answer, ok := errors.AsType[redis.Error](err); ok {
		return judgeAnswer(err, answer.Error())
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) {
		return outbox.Unavailable(err)
	}
	return outbox.UnknownOutcome(err)
}

// states are the first words of answers that speak of the server or the stream, not of the message.
var states = [...]string{
	"OOM", "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS", "BUSY", "MOVED", "ASK",
	"NOAUTH", "WRONGPASS", "NOPERM", "WRONGTYPE", "UNKILLABLE", "DENIED",
}

func judgeAnswer(err error, text string) error {
	word, _, _ := strings.Cut(text, " ")
	for _, s := range states {
		if word == s {
			return outbox.Unavailable(err)
		}
	}
	if strings.HasPrefix(text, "ERR max number of clients") {
		return outbox.Unavailable(err)
	}
	return err
}
