package watermillpub

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// data is the part of a Config that goes into files.
type data struct {
	Concurrency int `json:"concurrency,omitempty"`
}

func (c Config) data() data {
	return data{Concurrency: c.Concurrency}
}

// MarshalJSON encodes the fields that are set; functions and secrets are left out.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.data()) }

// UnmarshalJSON decodes what MarshalJSON encodes. Fields that b does not name keep their values, unknown ones are an error.
func (c *Config) UnmarshalJSON(b []byte) error {
	d := c.data()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return errors.Join(errors.New("watermillpub: Config"), err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("watermillpub: Config: more than one value")
	}
	c.Concurrency = d.Concurrency
	return nil
}
