package budget_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/budget"
)

func TestValidateNamesEveryField(t *testing.T) {
	c := budget.Config{Ratio: math.NaN(), TTL: -1, Start: 1e7, Cap: math.Inf(1), Floor: time.Microsecond}
	err := c.Validate()
	for _, field := range []string{"Ratio", "TTL", "Start", "Cap", "Floor"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field+" must") {
			t.Errorf("got %v, want a word on %s", err, field)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("New did not panic with a wrong config")
		}
	}()
	budget.New(c)
}

func TestValidateBounds(t *testing.T) {
	for _, tc := range []struct {
		c  budget.Config
		ok bool
	}{
		{budget.Config{}, true},
		{budget.Config{Ratio: -1, Start: -1, Cap: -1, Floor: -1}, true},
		{budget.Config{Ratio: 1e-7}, false},
		{budget.Config{Ratio: 100}, true},
		{budget.Config{Ratio: math.Inf(1)}, false},
		{budget.Config{TTL: time.Millisecond}, false},
		{budget.Config{Start: math.NaN()}, false},
		{budget.Config{Start: math.Inf(-1)}, false},
		{budget.Config{Start: 20}, true}, // the default cap makes room
		{budget.Config{Start: 5, Cap: 4}, false},
		{budget.Config{Cap: 0.5}, false},
		{budget.Config{Floor: 25 * time.Hour}, false},
	} {
		if err := tc.c.Validate(); (err == nil) != tc.ok {
			t.Errorf("%+v: got %v, want ok %v", tc.c, err, tc.ok)
		}
	}
}

func TestJSON(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 0.2, TTL: 20 * time.Second})
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"ratio":0.2,"ttl":"20s"}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var back budget.Budget
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Config(); got != b.Config() {
		t.Errorf("got %+v, want %+v", got, b.Config())
	}
	for _, bad := range []string{`{"ratios":1}`, `{"ratio":1e9}`, `{"ttl":5}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
	if got := back.Config(); got != b.Config() {
		t.Errorf("after wrong input: got %+v, want %+v", got, b.Config())
	}
}
