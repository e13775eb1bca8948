package sagamem_test

import (
	"testing"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagamem"
	"github.com/backstay-go/backstay/saga/sagatest"
)

func TestStore(t *testing.T) {
	sagatest.TestStore(t, func(*testing.T) saga.Store { return sagamem.New() })
}
