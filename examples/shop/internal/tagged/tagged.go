// Package tagged runs a program once more, built with a tag that its build lacks: what few need is then not built by those who do not.
package tagged

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Run builds the main package pkg with a build tag, which the module of the working directory has, and runs it with this
// program's input, output and further arguments; and returns its exit status once it has ended. Interrupts and SIGTERM are handed on to it. An error says what to type instead.
func Run(ctx context.Context, tag, pkg string, args []string) (code int, err error) {
	byHand := fmt.Sprintf("go run -tags %s %s", tag, pkg)
	if _, err := exec.LookPath("go"); err != nil {
		return 0, fmt.Errorf("there is no go command to build with (%w). Where there is one, type: %s", err, byHand)
	}
	dir, err := os.MkdirTemp("", "backstay-"+tag)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "program.exe") // Windows wants the ending, others do not mind
	build := exec.CommandContext(ctx, "go", "build", "-tags", tag, "-o", file, pkg)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w. In a checkout of Backstay, type: %s", build, err, byHand)
	}
	return run(file, args)
}

// run runs a program and hands signals on.
func run(file string, args []string) (code int, err error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	cmd := exec.Command(file, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // of a terminal it has had it already: once more does no harm
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
				return exit.ExitCode(), nil
			}
			return 0, err
		}
	}
}
