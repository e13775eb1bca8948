package saga

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Codec turns inputs, outputs, signals, error texts and operators' reasons into bytes for the
// store and back. A codec that encrypts keeps all of these out of the tables; business keys, step
// names and actors stay readable. It must be safe for concurrent use.
//
// A codec that is not deterministic (one that encrypts is not) should have a method
// Hash(v any) (string, error) as well: the input's hash tells a repeated Start from a conflicting
// one. Without it the hash is the SHA-256 of the input as JSON.
type Codec interface {
	// Name is stored with each instance; at most 255 bytes.
	Name() string
	Encode(v any) ([]byte, error)
	Decode(data []byte, v any) error
}

// JSON is the default codec: encoding/json.
type JSON struct{}

// Name returns "json".
func (JSON) Name() string { return "json" }

// Encode returns v as JSON.
func (JSON) Encode(v any) ([]byte, error) { return json.Marshal(v) }

// Decode reads JSON into v.
func (JSON) Decode(data []byte, v any) error { return json.Unmarshal(data, v) }

func hashInput(c Codec, v any, encoded []byte) (string, error) {
	if h, ok := c.(interface{ Hash(any) (string, error) }); ok {
		return h.Hash(v)
	}
	if _, ok := c.(JSON); !ok {
		var err error
		if encoded, err = json.Marshal(v); err != nil {
			return "", err
		}
	}
	sum := sha256.Sum256(encoded)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], sum[:])
	return string(text[:]), nil
}

// encode runs the definition's codec under its size limit.
func (d *definition) encode(what string, v any) ([]byte, error) {
	if _, ok := v.(struct{}); ok {
		return nil, nil // by far the most frequent output
	}
	data, err := d.codec.Encode(v)
	if err != nil {
		return nil, &codecError{what, err}
	}
	if len(data) > d.maxPayload {
		return nil, &codecError{what, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), d.maxPayload)}
	}
	return data, nil
}

func (d *definition) decode(what string, data []byte, v any) (err error) {
	if len(data) == 0 {
		return nil // struct{}: see encode
	}
	defer func() {
		if p := recover(); p != nil {
			err = &codecError{what, fmt.Errorf("panic: %v", p)}
		}
	}()
	if err := d.codec.Decode(data, v); err != nil {
		return &codecError{what, err}
	}
	return nil
}

// note encodes a text: an error or a reason. A text too long is cut, not refused.
func (d *definition) note(text string) []byte {
	if text == "" {
		return nil
	}
	if len(text) > maxNote {
		text = text[:maxNote] + " …"
	}
	data, err := d.codec.Encode(text)
	if err != nil {
		data, _ = d.codec.Encode("(text could not be encoded)")
	}
	return data
}

func (d *definition) noteText(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	var text string
	if err := d.decode("note", data, &text); err != nil {
		return "(unreadable)"
	}
	return text
}

const (
	maxNote    = 8 << 10
	maxPayload = 1 << 20 // default of MaxPayload
)
