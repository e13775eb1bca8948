package migrate

import "strings"

// Split cuts a script into its statements, without the semicolons, without
// comments and without empty ones. Semicolons in quotes, in comments and
// between dollar quotes ($$ or $tag$) do not cut. The bodies of SQLite
// triggers (BEGIN … END) are not understood.
func Split(script string) []string {
	var out []string
	var b strings.Builder
	flush := func() {
		if s := strings.TrimSpace(b.String()); s != "" {
			out = append(out, s)
		}
		b.Reset()
	}
	for i := 0; i < len(script); {
		rest := script[i:]
		n := 1
		switch {
		case strings.HasPrefix(rest, "--"):
			n = until(rest, "\n", 0)
			b.WriteByte('\n')
			i += n
			continue
		case strings.HasPrefix(rest, "/*"):
			i += until(rest, "*/", 2)
			b.WriteByte(' ')
			continue
		case rest[0] == '\'' || rest[0] == '"' || rest[0] == '`':
			// A doubled quote closes one string and opens the next, which
			// comes to the same.
			n = until(rest, rest[:1], 1)
		case rest[0] == '$':
			if tag := dollarTag(rest); tag != "" {
				n = until(rest, tag, len(tag))
			}
		case rest[0] == ';':
			flush()
			i++
			continue
		}
		b.WriteString(rest[:n])
		i += n
	}
	flush()
	return out
}

// until returns the length of s up to and with the first end at or after from.
func until(s, end string, from int) int {
	if k := strings.Index(s[from:], end); k >= 0 {
		return from + k + len(end)
	}
	return len(s)
}

// dollarTag returns the $tag$ that s begins with, or nothing.
func dollarTag(s string) string {
	for k := 1; k < len(s); k++ {
		c := s[k]
		switch {
		case c == '$':
			return s[:k+1]
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || k > 1 && c >= '0' && c <= '9':
		default:
			return ""
		}
	}
	return ""
}
