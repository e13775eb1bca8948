package telemetry

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"github.com/backstay-go/backstay"
)

// ErrorType returns a name for err that is fit for the attribute error.type: one of few, and nothing of its text. "" for nil. It is, the first that holds:
// what a method ErrorType() string of an error in the tree says (as package semconv of OpenTelemetry does); the kind of policy that refused
// ("breaker"); "timeout" and "cancelled" for the ends of contexts; else the Go type of the outermost error that is more than a wrapper.
func ErrorType(err error) string {
	if err == nil {
		return ""
	}
	var named interface{ ErrorType() string }
	if errors.As(err, &named) {
		if name := named.ErrorType(); name != "" {
			return name
		}
	}
	var refused *backstay.Rejected
	switch {
	case errors.As(err, &refused):
		return refused.Policy
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return typeName(err)
}

// typeName returns the type of the outermost error that is more than a wrapper. A plain text has no type worth telling.
func typeName(err error) string {
	for err != nil {
		t := reflect.TypeOf(err)
		name := t.String()
		pkg := t.PkgPath()
		if t.Kind() == reflect.Pointer {
			pkg = t.Elem().PkgPath()
		}
		if pkg != "errors" && pkg != "fmt" && !strings.HasPrefix(pkg, scope) {
			return name
		}
		switch u := err.(type) {
		case interface{ Unwrap() error }:
			err = u.Unwrap()
		case interface{ Unwrap() []error }:
			all := u.Unwrap()
			if len(all) == 0 {
				return otherError
			}
			err = all[0]
		default:
			if pkg == "errors" || pkg == "fmt" {
				return otherError
			}
			return name
		}
	}
	return otherError
}
