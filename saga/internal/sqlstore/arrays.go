package sqlstore

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// The columns of a PostgreSQL batch travel as arrays, so that one statement
// text serves every size of batch and is planned once. A driver of
// database/sql need not know arrays; it gets PostgreSQL's text form.

func (s *Store) ints(v []int64) any {
	if s.native {
		return v
	}
	b := make([]byte, 0, 2+len(v)*6)
	b = append(b, '{')
	for i, n := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, '}'))
}

func (s *Store) texts(v []string) any {
	if s.native {
		return v
	}
	n := 2
	for _, e := range v {
		n += len(e) + 3
	}
	b := make([]byte, 0, n)
	b = append(b, '{')
	for i, e := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		if strings.ContainsAny(e, `"\`) {
			for k := range len(e) {
				if e[k] == '"' || e[k] == '\\' {
					b = append(b, '\\')
				}
				b = append(b, e[k])
			}
		} else {
			b = append(b, e...)
		}
		b = append(b, '"')
	}
	return string(append(b, '}'))
}

// blobs keeps nil slices as NULL.
func (s *Store) blobs(v [][]byte) any {
	if s.native {
		return v
	}
	n := 2
	for _, e := range v {
		n += 2*len(e) + 7
	}
	b := make([]byte, 0, n)
	b = append(b, '{')
	for i, e := range v {
		if i > 0 {
			b = append(b, ',')
		}
		if e == nil {
			b = append(b, "NULL"...)
			continue
		}
		b = append(b, `"\\x`...)
		b = hex.AppendEncode(b, e)
		b = append(b, '"')
	}
	return string(append(b, '}'))
}
