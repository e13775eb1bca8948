package outbox

import (
	"slices"
	"strings"
)

// EncodeHeaders returns the headers as stores keep them: lines of "name: value", sorted by name, readable in a query tool. It is
// for valid headers only (see [Message.Validate]), which hold no line breaks and no colon in a name.
func EncodeHeaders(h map[string]string) string {
	switch len(h) {
	case 0:
		return ""
	case 1:
		for k, v := range h {
			return k + ": " + v + "\n"
		}
	}
	var few [8]string
	names := few[:0]
	for k := range h {
		names = append(names, k)
	}
	slices.Sort(names)
	var b strings.Builder
	b.Grow(headerSize(h))
	for _, k := range names {
		b.WriteString(k)
		b.WriteString(": ")
		b.WriteString(h[k])
		b.WriteByte('\n')
	}
	return b.String()
}

// DecodeHeaders is the reverse of [EncodeHeaders]. Lines of another shape, which it never writes, are left out.
func DecodeHeaders(s string) map[string]string {
	if s == "" {
		return nil
	}
	h := make(map[string]string, strings.Count(s, "\n"))
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		if name, value, ok := strings.Cut(line, ": "); ok {
			h[name] = value
		}
	}
	return h
}
