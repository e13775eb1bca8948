package budget_test

import (
	"fmt"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/budget"
)

func ExampleNew() {
	b := budget.New(budget.Config{})
	for range 40 {
		b.Deposit() // a retry policy does this for each call
	}
	retries := 0
	for b.Withdraw() { // and this for each attempt beyond the first
		retries++
	}
	fmt.Println(retries, "retries: 2 to start with, and a tenth of 40 calls")
	// Output: 6 retries: 2 to start with, and a tenth of 40 calls
}

func ExamplePerKey() {
	budgets := budget.PerKey(budget.Config{}, backstay.KeyedConfig{})
	for budgets.For("bad.example").Withdraw() {
	}
	fmt.Println(budgets.For("bad.example").Withdraw(), budgets.For("good.example").Withdraw())
	// Output: false true
}
