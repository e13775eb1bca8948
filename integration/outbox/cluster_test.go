package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A cluster is a PostgreSQL of the test's own, for what a shared one cannot be: crashed, new, or set otherwise.
type cluster struct {
	bin, dir string
	port     int
	as       *syscall.SysProcAttr // PostgreSQL refuses to run as root
	options  []string
	server   *exec.Cmd
}

// startCluster makes a cluster and starts it with options, such as "max_prepared_transactions=5". It skips the test when PostgreSQL's programs are not
// installed, or fails it if the environment has BACKSTAY_SERVERS=require.
func startCluster(t *testing.T, options ...string) *cluster {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the error is of the pattern
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		if os.Getenv("BACKSTAY_SERVERS") == "require" {
			t.Fatal("no initdb, neither in /usr/lib/postgresql/*/bin nor in the path")
		}
		t.Skip("skipped: no initdb (BACKSTAY_SERVERS=require makes this a failure)")
	}
	slices.Sort(found)
	c := &cluster{bin: filepath.Dir(found[len(found)-1]), options: options}
	parent, err := os.MkdirTemp("", "outbox-cluster-") //nolint:usetesting // the parent of t.TempDir is root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("skipped: PostgreSQL does not run as root, and there is no user postgres: %v", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 != nil || err2 != nil || os.Chown(parent, uid, gid) != nil {
			t.Fatal("the folder cannot be given to the user postgres")
		}
		c.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	c.dir = filepath.Join(parent, "data")
	c.port = freePort(t)
	c.run(t, nil, "initdb", "-D", c.dir, "-U", "postgres", "-A", "trust", "-N", "--locale=C", "--encoding=UTF8")
	c.start(t)
	t.Cleanup(func() { c.stop(syscall.SIGINT) })
	return c
}

// freePort returns a port for a server that listens some seconds later, and again after a crash. It is none of those that systems hand out to whoever
// asks for any (from 32768 on Linux): such a one would be somebody else's by then, now and then.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 16384 + rand.IntN(16384)
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no free port below 32768")
	return 0
}

// run runs one of PostgreSQL's programs and returns what it wrote.
func (c *cluster) run(t *testing.T, in []byte, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdin = c.as, filepath.Dir(c.dir), bytes.NewReader(in)
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, faults.Bytes())
	}
	return out
}

func (c *cluster) start(t *testing.T) {
	t.Helper()
	args := []string{"-D", c.dir, "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + filepath.Dir(c.dir), "-c", "fsync=off"}
	for _, o := range c.options {
		args = append(args, "-c", o)
	}
	c.server = exec.Command(filepath.Join(c.bin, "postgres"), args...)
	c.server.SysProcAttr, c.server.Dir = c.as, filepath.Dir(c.dir)
	if err := c.server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster takes connections", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, c.dsn())
		if err != nil {
			return false
		}
		conn.Close(ctx)
		return true
	})
}

// stop ends the server: SIGINT in order, SIGQUIT as a crash would.
func (c *cluster) stop(sig os.Signal) {
	c.server.Process.Signal(sig)
	c.server.Wait()
}

func (c *cluster) dsn() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", c.port)
}
