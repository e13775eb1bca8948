package sagamem_test

import (
	"context"
	"testing"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"github.com/backstay-go/backstay/saga/sagatest"
)

func TestStore(t *testing.T) {
	sagatest.TestStore(t, func(*testing.T) saga.Store { return sagamem.New() })
}

func TestEngine(t *testing.T) {
	sagatest.TestEngine(t, sagatest.Kit{
		Open:    func(*testing.T) saga.Store { return sagamem.New() },
		Virtual: true,
		Write: func(_ context.Context, handle any, key, value string) error {
			handle.(*sagamem.Tx).Put(key, value)
			return nil
		},
		Value:  func(_ *testing.T, s saga.Store, key string) string { return s.(*sagamem.Store).Value(key) },
		TxKind: sagamem.New().TxKind(),
	})
}

// TestEngineRealTime runs the same cases as a database does.
func TestEngineRealTime(t *testing.T) {
	sagatest.TestEngine(t, sagatest.Kit{Open: func(*testing.T) saga.Store { return sagamem.New() }})
}
