package natspub

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"
)

// data is the part of a Config that goes into files.
type data struct {
	Topics  []string `json:"topics,omitempty"`
	AckWait text     `json:"ackWait,omitzero"`
}

func (c Config) data() data {
	return data{Topics: c.Topics, AckWait: text(c.AckWait)}
}

// MarshalJSON encodes the fields that are set, durations as strings ("1.5s"); functions and secrets are left out.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.data()) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that b does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(b []byte) error {
	d := c.data()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return errors.Join(errors.New("natspub: Config"), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("natspub: Config: more than one value")
	}
	c.Topics = d.Topics
	c.AckWait = time.Duration(d.AckWait)
	return nil
}

// text is a duration as text.
type text time.Duration

func (t text) MarshalText() ([]byte, error) { return []byte(time.Duration(t).String()), nil }

func (t *text) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*t = text(d)
	return err
}
