// Command tally reads the output of go test -json, prints what a person wants to read of it, and appends its counts to a file.
//
//	go test -json ./... | tally -counts FILE
//
// It prints one line for each package, the output of tests that failed, and the reason of every skip. It exits with 1 when anything failed, or when no
// test ran. Subtests count; so does a package that does not build, once, as failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	counts := flag.String("counts", "", "file to append a line `passed failed skipped` to")
	flag.Parse()
	t := tally{out: os.Stdout, output: map[string][]string{}, tests: map[string]int{}}
	err := t.read(os.Stdin)
	if err == nil && *counts != "" {
		err = t.save(*counts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
	if t.failed > 0 || t.passed == 0 {
		os.Exit(1)
	}
}

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// tally counts tests and keeps the output of those that are not over.
type tally struct {
	out                     io.Writer
	output                  map[string][]string // by package and test
	tests                   map[string]int      // by package: tests that ran
	passed, failed, skipped int
}

func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(t.out, lines.Text()) // the go command itself has something to say
			continue
		}
		t.add(e)
	}
	return lines.Err()
}

func (t *tally) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		t.output[key] = append(t.output[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(t.out, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	lines := t.output[key]
	delete(t.output, key)
	if e.Test == "" {
		t.endPackage(e, lines)
		return
	}
	switch e.Action {
	case "pass":
		t.passed++
		t.tests[e.Package]++
	case "fail":
		t.failed++
		t.tests[e.Package]++
		fmt.Fprintf(t.out, "%s\n%s", e.Package, strings.Join(lines, ""))
	case "skip":
		t.skipped++
		fmt.Fprintf(t.out, "skip %s %s: %s\n", e.Package, e.Test, reason(lines))
	}
}

func (t *tally) endPackage(e event, lines []string) {
	took := time.Duration(e.Elapsed * float64(time.Second))
	switch {
	case e.Action == "fail":
		if e.FailedBuild != "" || t.tests[e.Package] == 0 {
			t.failed++ // nothing else stands for it
		}
		// A panic, a deadlock or a time-out is the output of the package, or of tests that never ended.
		for key, left := range t.output {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprint(t.out, strings.Join(left, ""))
				delete(t.output, key)
				t.failed++
			}
		}
		fmt.Fprint(t.out, strings.Join(lines, ""))
		fmt.Fprintf(t.out, "FAIL %s %v\n", e.Package, took)
	case t.tests[e.Package] > 0:
		fmt.Fprintf(t.out, "ok   %s %v (%d tests)\n", e.Package, took, t.tests[e.Package])
	}
}

func (t *tally) save(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, t.passed, t.failed, t.skipped); err != nil {
		return err
	}
	return f.Close()
}

// reason returns what the test said before it was skipped.
func reason(lines []string) string {
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l
		}
	}
	return "no reason given"
}
