package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"github.com/backstay-go/backstay/examples/shop/internal/service"
)

// ServiceFlag is the argument by which the program, run by itself, is one service.
const ServiceFlag = "-service"

// outside runs a service in a process of its own: this program once more. It is told what to be on its standard input, whose end tells it to
// stop, also when this process dies in whatever way; and says on its standard output where it serves.
func (s *Supervisor) outside(ctx context.Context, u *unit, ready func(service.Addresses)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, ServiceFlag)
	cmd.Stderr = s.cfg.Log
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.mu.Lock()
	u.pid, u.process = cmd.Process.Pid, cmd.Process
	spec := u.spec
	s.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	talk := json.NewEncoder(in).Encode(spec)
	if talk == nil {
		var a service.Addresses
		if talk = json.NewDecoder(out).Decode(&a); talk == nil {
			ready(a)
		}
	}
	_, _ = io.Copy(io.Discard, out) // until it ends
	err = cmd.Wait()
	s.mu.Lock()
	u.process = nil
	s.mu.Unlock()
	if err == nil && talk != nil {
		err = fmt.Errorf("it ended before it served: %w", talk)
	}
	return err
}

// Serve is the other side of outside: the whole program, when it is one service.
func Serve(mains map[string]service.Main) error {
	signal.Ignore(os.Interrupt) // Ctrl-C reaches all processes of a terminal; who began this one says when it ends
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var spec service.Spec
	if err := json.Unmarshal(line, &spec); err != nil {
		return err
	}
	main := mains[spec.Name]
	if main == nil {
		return fmt.Errorf("there is no service %q", spec.Name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	err = service.Run(ctx, spec, main, func(a service.Addresses) {
		_ = json.NewEncoder(os.Stdout).Encode(a) // who began this process has gone: its input ends as well
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
