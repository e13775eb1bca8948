package outbox

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
)

// Sealer encrypts a payload at enqueue, in place of m.Payload. It must not touch ID, Topic or Key, and may add headers (a key's name).
// It is called before the message is written, in the caller's transaction, from any goroutine.
type Sealer interface {
	Seal(ctx context.Context, m *Message) error
}

// Opener is the reverse of a [Sealer]. A relay that has one publishes plain payloads (encryption at rest); without one, consumers open
// (end to end). An error is a failed attempt at the message; mark it [Permanent] when it can never be opened.
type Opener interface {
	Open(ctx context.Context, m *Message) error
}

// KeyHeader is the header in which [AES] names the key that a payload was sealed with.
const KeyHeader = "outbox-sealed-by"

// AES seals and opens payloads with AES-GCM; the message's id and topic are authenticated too, so that a payload cannot be moved
// to another message. Keys are 16, 24 or 32 bytes by name, so that they can be rotated: Current seals, all open. A message without [KeyHeader] is opened as
// it is. Nonces are 96 random bits: rotate a key before 2^32 messages (NIST SP 800-38D §8.3). Safe for concurrent use
// as long as the fields are not changed.
type AES struct {
	Current string
	Keys    map[string][]byte
}

// Seal implements [Sealer].
func (a AES) Seal(_ context.Context, m *Message) error {
	gcm, err := a.gcm(a.Current)
	if err != nil {
		return err
	}
	sealed := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(m.Payload)+gcm.Overhead())
	rand.Read(sealed)
	m.Payload = gcm.Seal(sealed, sealed, m.Payload, a.bound(m))
	headers := make(map[string]string, len(m.Headers)+1)
	maps.Copy(headers, m.Headers)
	headers[KeyHeader] = a.Current
	m.Headers = headers
	return nil
}

// Open implements [Opener].
func (a AES) Open(_ context.Context, m *Message) error {
	name, ok := m.Headers[KeyHeader]
	if !ok {
		return nil
	}
	gcm, err := a.gcm(name)
	if err != nil {
		return err
	}
	n := gcm.NonceSize()
	if len(m.Payload) < n {
		return Permanent(errors.New("outbox: sealed payload: too short"))
	}
	plain, err := gcm.Open(nil, m.Payload[:n], m.Payload[n:], a.bound(m))
	if err != nil {
		return Permanent(fmt.Errorf("outbox: sealed payload, key %q: %w", name, err))
	}
	m.Payload = plain
	headers := make(map[string]string, len(m.Headers))
	for k, v := range m.Headers {
		if k != KeyHeader {
			headers[k] = v
		}
	}
	m.Headers = headers
	return nil
}

func (a AES) gcm(name string) (cipher.AEAD, error) {
	key, ok := a.Keys[name]
	if !ok {
		return nil, fmt.Errorf("outbox: no key named %q", name)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("outbox: key %q: %w", name, err)
	}
	return cipher.NewGCM(block)
}

func (a AES) bound(m *Message) []byte { return []byte(m.ID + "\x00" + m.Topic) }
