package redispub

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"
)

// data is the part of a Config that goes into files.
type data struct {
	MaxLen      int64    `json:"maxLen,omitempty"`
	Existing    bool     `json:"existing,omitempty"`
	Producer    string   `json:"producer,omitempty"`
	Replicas    int      `json:"replicas,omitempty"`
	ReplicaWait text     `json:"replicaWait,omitzero"`
	MaxMessage  int      `json:"maxMessage,omitempty"`
	Wait        text     `json:"wait,omitzero"`
	Streams     []string `json:"streams,omitempty"`
}

func (c Config) data() data {
	return data{MaxLen: c.MaxLen, Existing: c.Existing, Producer: c.Producer, Replicas: c.Replicas, ReplicaWait: text(c.ReplicaWait), MaxMessage: c.MaxMessage, Wait: text(c.Wait), Streams: c.Streams}
}

// MarshalJSON encodes the fields that are set, durations as strings ("1.5s"); functions and secrets are left out.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.data()) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that b does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(b []byte) error {
	d := c.data()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return errors.Join(errors.New("redispub: Config"), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("redispub: Config: more than one value")
	}
	c.MaxLen = d.MaxLen
	c.Existing = d.Existing
	c.Producer = d.Producer
	c.Replicas = d.Replicas
	c.ReplicaWait = time.Duration(d.ReplicaWait)
	c.MaxMessage = d.MaxMessage
	c.Wait = time.Duration(d.Wait)
	c.Streams = d.Streams
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
