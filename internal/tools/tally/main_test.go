package main

import (
	"io"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for name, c := range map[string]struct {
		in                      string
		passed, failed, skipped int
		shows                   string
	}{
		"pass": {`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"pass","Package":"p","Elapsed":0.5}`, 2, 0, 0, "ok   p 500ms (2 tests)"},
		"fail": {`{"Action":"output","Package":"p","Test":"TestA","Output":"got 1, want 2\n"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, 1, 1, 0, "got 1, want 2"},
		"skip": {`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no server\n"}
{"Action":"skip","Package":"p","Test":"TestA"}`, 0, 0, 1, "no server"},
		"does not build": {`{"Action":"build-output","ImportPath":"p","Output":"p.go:1: syntax error\n"}
{"Action":"build-fail","ImportPath":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`, 0, 1, 0, "syntax error"},
		"ended by a panic": {`{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"panic: timed out\n"}
{"Action":"fail","Package":"p"}`, 1, 1, 0, "panic: timed out"},
		"only failures": {`{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, 0, 1, 0, "FAIL p"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			tl := tally{out: &out, output: map[string][]string{}, tests: map[string]int{}}
			if err := tl.read(strings.NewReader(c.in)); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if tl.passed != c.passed || tl.failed != c.failed || tl.skipped != c.skipped {
				t.Errorf("got %d passed, %d failed, %d skipped, want %d, %d, %d", tl.passed, tl.failed, tl.skipped, c.passed, c.failed, c.skipped)
			}
			if !strings.Contains(out.String(), c.shows) {
				t.Errorf("got %q, want it to show %q", out.String(), c.shows)
			}
		})
	}
}
