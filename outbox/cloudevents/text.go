package cloudevents

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Encode percent-encodes a value as the HTTP binding asks (§3.1.3.2): space, double quote, percent sign and everything outside
// printable ASCII. Other text is returned as it is. No two values have one encoding.
func Encode(s string) string {
	n := 0
	for i := range len(s) {
		if escaped(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 2*n)
	for i := range len(s) {
		if c := s[i]; escaped(c) {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escaped(c byte) bool { return c <= ' ' || c >= 0x7f || c == '"' || c == '%' }

var errEncoding = errors.New("cloudevents: malformed percent-encoding")

// Decode undoes [Encode]. It is strict about percent signs: one that two hexadecimal digits do not follow, and a result that is not
// UTF-8, are errors.
func Decode(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 {
		if !utf8.ValidString(s) {
			return "", errEncoding
		}
		return s, nil
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errEncoding
		}
		high, ok1 := unhex(s[i+1])
		low, ok2 := unhex(s[i+2])
		if !ok1 || !ok2 {
			return "", errEncoding
		}
		b.WriteByte(high<<4 | low)
		i += 2
	}
	if out := b.String(); utf8.ValidString(out) {
		return out, nil
	}
	return "", errEncoding
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// plainText reports whether s is valid UTF-8 without control characters, as the specification's type String is.
func plainText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || 0x7f <= r && r <= 0x9f {
			return false
		}
	}
	return true
}
