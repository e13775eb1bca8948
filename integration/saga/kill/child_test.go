package kill_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/backstay-go/backstay/integration/saga/sagadb"
	"github.com/backstay-go/backstay/internal/sqldialect"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagasql"
)

// The test binary is its own child: with these variables it is an engine.
const (
	envDSN     = "BACKSTAY_KILL_DSN"
	envDialect = "BACKSTAY_KILL_DIALECT"
	envPoint   = "BACKSTAY_KILL_POINT" // where to die
	envCount   = "BACKSTAY_KILL_COUNT" // at which passing
)

func TestMain(m *testing.M) {
	if os.Getenv(envDSN) == "" {
		os.Exit(m.Run())
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// child runs an engine until the process is killed, or its parent is.
func child() error {
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the parent
		os.Exit(0)
	}()
	n, _ := strconv.Atoi(os.Getenv(envDialect))
	d := sqldialect.Dialect(n)
	db, err := sagadb.Connect(d, os.Getenv(envDSN))
	if err != nil {
		return err
	}
	count, _ := strconv.ParseInt(os.Getenv(envCount), 10, 64)
	var passed atomic.Int64
	at := func(point string) {
		if point == os.Getenv(envPoint) && passed.Add(1) == count {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal may take a moment: nothing more happens here
		}
	}
	store := &mortal{Store: sagasql.New(db, d), at: at}
	e := saga.New(store, saga.Register(newWorld(db, d, at).definition()), config)
	for {
		// Run fails when the database cannot be reached at the start.
		if err := e.Run(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "child: run:", err)
		}
		e = saga.New(store, saga.Register(newWorld(db, d, at).definition()), config)
	}
}

// mortal is a store with points of death around its commits.
type mortal struct {
	*sagasql.Store
	at func(string)
}

func (m *mortal) Commit(ctx context.Context, batch []saga.Checkpoint) ([]saga.Committed, error) {
	m.at("commit:before")
	out, err := m.Store.Commit(ctx, batch)
	m.at("commit:after")
	return out, err
}

func (m *mortal) Claim(ctx context.Context, want saga.Claim) ([]saga.Claimed, error) {
	out, err := m.Store.Claim(ctx, want)
	if len(out) > 0 {
		m.at("claim:after")
	}
	return out, err
}

func (m *mortal) InTx(ctx context.Context, at saga.Fence, body func(saga.Tx) (saga.Checkpoint, error)) (saga.Committed, error) {
	out, err := m.Store.InTx(ctx, at, body)
	m.at("intx:after")
	return out, err
}
