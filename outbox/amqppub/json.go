package amqppub

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"
)

// data is the part of a Config that goes into files.
type data struct {
	Exchange   string   `json:"exchange,omitempty"`
	Queues     []string `json:"queues,omitempty"`
	MaxMessage int      `json:"maxMessage,omitempty"`
	Wait       text     `json:"wait,omitzero"`
	Heartbeat  text     `json:"heartbeat,omitzero"`
	Name       string   `json:"name,omitempty"`
}

func (c Config) data() data {
	return data{Exchange: c.Exchange, Queues: c.Queues, MaxMessage: c.MaxMessage, Wait: text(c.Wait), Heartbeat: text(c.Heartbeat), Name: c.Name}
}

// MarshalJSON encodes the fields that are set, durations as strings ("1.5s"); functions and secrets are left out.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.data()) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that b does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(b []byte) error {
	d := c.data()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return errors.Join(errors.New("amqppub: Config"), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("amqppub: Config: more than one value")
	}
	c.Exchange = d.Exchange
	c.Queues = d.Queues
	c.MaxMessage = d.MaxMessage
	c.Wait = time.Duration(d.Wait)
	c.Heartbeat = time.Duration(d.Heartbeat)
	c.Name = d.Name
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
