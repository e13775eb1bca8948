package grpcclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/backstay-go/backstay"
)

// Methods is a table of what is known about methods, as data. It stands among the policies of [New]. A key is
//
//	"/package.Service/Method"  one method; goes before the next
//	"/package.Service/*"       all methods of a service; goes before what the .proto says
//	"*"                        all methods, where the .proto says nothing
//
// Call options go before all of them. Several tables are merged, later entries replacing earlier ones of the same key.
type Methods map[string]Method

// Method is what is known about one. The zero value says nothing.
type Method struct {
	// Repeat says whether a call may be made more than once: "yes", "no", or "" for what the next place says.
	Repeat string
	// Attempts is how many attempts a call gets in all, in place of the retry's own number. 1: no retry. Default 0: the retry's own.
	Attempts int
	// Hedge starts a further attempt when one takes this long, if the call may be repeated; see the call option [Hedge]. Default 0: as the pipeline
	// says; negative: none.
	Hedge time.Duration
	// RetryOn are the codes after which a call is repeated, by name ("UNAVAILABLE"), if it may be repeated. Default: UNAVAILABLE, and RESOURCE_EXHAUSTED when
	// the server says when.
	RetryOn []string
	// FailOn are the codes that count as failures of the server, by name. Default: INTERNAL, UNKNOWN, DATA_LOSS, UNAVAILABLE, DEADLINE_EXCEEDED.
	FailOn []string
	// Unregistered says that no generated code of the method is linked in, so that its name cannot be checked.
	Unregistered bool
}

// methodJSON is a Method as JSON has it.
type methodJSON struct {
	Repeat       string   `json:"repeat,omitempty"`
	Attempts     int      `json:"attempts,omitempty"`
	Hedge        string   `json:"hedge,omitempty"`
	RetryOn      []string `json:"retryOn,omitempty"`
	FailOn       []string `json:"failOn,omitempty"`
	Unregistered bool     `json:"unregistered,omitempty"`
}

// MarshalJSON writes durations as strings.
func (m Method) MarshalJSON() ([]byte, error) {
	j := methodJSON{Repeat: m.Repeat, Attempts: m.Attempts, RetryOn: m.RetryOn, FailOn: m.FailOn, Unregistered: m.Unregistered}
	if m.Hedge != 0 {
		j.Hedge = m.Hedge.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (m *Method) UnmarshalJSON(data []byte) error {
	var j methodJSON
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return fmt.Errorf("grpcclient: Method: %w", err)
	}
	*m = Method{Repeat: j.Repeat, Attempts: j.Attempts, RetryOn: j.RetryOn, FailOn: j.FailOn, Unregistered: j.Unregistered}
	if j.Hedge == "" {
		return nil
	}
	d, err := time.ParseDuration(j.Hedge)
	if err != nil {
		return fmt.Errorf("grpcclient: Method: hedge: %w", err)
	}
	m.Hedge = d
	return nil
}

// Wrap implements backstay.Policy, so that the table mixes with policies. It does nothing as one.
func (m Methods) Wrap(next backstay.Handler) backstay.Handler { return next }

// Validate reports every entry that makes no sense: a key that is no method, a method that is not linked in, a negative number of attempts, a name that
// is no code.
func (m Methods) Validate() error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(m)) {
		add := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("grpcclient: Methods[%q]"+format, append([]any{key}, args...)...))
		}
		e := m[key]
		if err := checkKey(key, e.Unregistered); err != nil {
			add(": %w", err)
		}
		if e.Repeat != "" && e.Repeat != "yes" && e.Repeat != "no" {
			add(".Repeat is %q; it must be \"yes\", \"no\" or empty", e.Repeat)
		}
		if e.Attempts < 0 {
			add(".Attempts is %d; it must not be negative", e.Attempts)
		}
		if _, err := parseCodes(e.RetryOn); err != nil {
			add(".RetryOn: %w", err)
		}
		if _, err := parseCodes(e.FailOn); err != nil {
			add(".FailOn: %w", err)
		}
	}
	return errors.Join(errs...)
}

// checkKey reports what is wrong with the key of a table.
func checkKey(key string, unregistered bool) error {
	if key == "*" {
		return nil
	}
	service, method, ok := splitMethod(key)
	if !ok {
		return errors.New("want \"/package.Service/Method\", \"/package.Service/*\" or \"*\"")
	}
	if unregistered {
		return nil
	}
	d, _ := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	sd, ok := d.(protoreflect.ServiceDescriptor)
	switch {
	case !ok:
		return fmt.Errorf("unknown service %s: its generated code is not linked in; if there is none, set Unregistered", service)
	case method != "*" && sd.Methods().ByName(protoreflect.Name(method)) == nil:
		return fmt.Errorf("unknown method: service %s has no %s", service, method)
	}
	return nil
}

// splitMethod takes "/package.Service/Method" apart.
func splitMethod(full string) (service, method string, ok bool) {
	if !strings.HasPrefix(full, "/") {
		return "", "", false
	}
	service, method, ok = strings.Cut(full[1:], "/")
	return service, method, ok && service != "" && method != "" && !strings.Contains(method, "/")
}

// codeSet is a set of status codes.
type codeSet uint32

func (s codeSet) has(c codes.Code) bool { return c < 32 && s&(1<<c) != 0 }

func setOf(all ...codes.Code) (s codeSet) {
	for _, c := range all {
		s |= 1 << c
	}
	return s
}

// parseCodes reads names of codes, as the specification writes them.
func parseCodes(names []string) (set codeSet, err error) {
	var errs []error
	for _, name := range names {
		var c codes.Code
		if err := c.UnmarshalJSON([]byte(`"` + name + `"`)); err != nil || name == "" {
			errs = append(errs, fmt.Errorf("%q is no status code", name))
			continue
		}
		if c == codes.OK {
			errs = append(errs, errors.New("OK is no error"))
			continue
		}
		set |= setOf(c)
	}
	return set, errors.Join(errs...)
}

// merged returns a table with the entries of both, those of more going first.
func (m Methods) merged(more Methods) Methods {
	all := maps.Clone(m)
	if all == nil {
		all = Methods{}
	}
	maps.Copy(all, more)
	return all
}
