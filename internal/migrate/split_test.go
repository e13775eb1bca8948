package migrate_test

import (
	"slices"
	"testing"

	"github.com/backstay-go/backstay/internal/migrate"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" ;; \n;", nil},
		{"a; b", []string{"a", "b"}},
		{"-- one; two\na;", []string{"a"}},
		{"a /* ; */ b;", []string{"a   b"}},
		{"a ';' 'it''s;' b; c", []string{"a ';' 'it''s;' b", "c"}},
		{"a `;` \";\" b; c", []string{"a `;` \";\" b", "c"}},
		{"DO $$ x; y; $$; z", []string{"DO $$ x; y; $$", "z"}},
		{"DO $fn$ x; $$; y; $fn$; z", []string{"DO $fn$ x; $$; y; $fn$", "z"}},
		{"a $1; b", []string{"a $1", "b"}},
		{"a 'open; b", []string{"a 'open; b"}},
	} {
		if got := migrate.Split(c.in); !slices.Equal(got, c.want) {
			t.Errorf("Split(%q): got %q, want %q", c.in, got, c.want)
		}
	}
}
