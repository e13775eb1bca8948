// Package configjson encodes the Config structs of this module: durations as strings ("1.5s"), zero fields left out, functions and
// interfaces left out, unknown fields refused.
package configjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
)

var durationType = reflect.TypeFor[time.Duration]()

// Marshal encodes the struct config. A Config calls it from its MarshalJSON, with itself by value.
func Marshal(config any) ([]byte, error) {
	v := reflect.ValueOf(config)
	var out bytes.Buffer
	out.WriteByte('{')
	for i := range v.NumField() {
		name, ok := fieldName(v.Type().Field(i))
		field := v.Field(i)
		if !ok || field.IsZero() {
			continue
		}
		var value any = field.Interface()
		if field.Type() == durationType {
			value = time.Duration(field.Int()).String()
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", name, text)
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// Unmarshal decodes data into the struct that config points to. Fields that data does not name keep their values. All faults
// are reported, each with the field's name.
func Unmarshal(data []byte, config any) error {
	v := reflect.ValueOf(config).Elem()
	kind := v.Type().String()
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	var errs []error
	for i := range v.NumField() {
		name, ok := fieldName(v.Type().Field(i))
		if !ok {
			continue
		}
		text, ok := raw[name]
		if !ok {
			continue
		}
		delete(raw, name)
		if err := decode(text, v.Field(i)); err != nil {
			errs = append(errs, fmt.Errorf("%s: field %q: %w", kind, name, err))
		}
	}
	for name := range raw {
		errs = append(errs, fmt.Errorf("%s: unknown field %q", kind, name))
	}
	return errors.Join(errs...)
}

func decode(text json.RawMessage, field reflect.Value) error {
	if field.Type() != durationType {
		return json.Unmarshal(text, field.Addr().Interface())
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return errors.New(`want a duration as a string, such as "1.5s"`)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return err
	}
	field.SetInt(int64(d))
	return nil
}

// fieldName returns the JSON name of f, and whether it takes part.
func fieldName(f reflect.StructField) (string, bool) {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" || !f.IsExported() || f.Type.Kind() == reflect.Func || f.Type.Kind() == reflect.Interface {
		return "", false
	}
	if name == "" {
		name = f.Name
	}
	return name, true
}
