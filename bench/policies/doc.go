// Package policies benchmarks policies around a function that returns at once, so that what is measured is the policies' own cost, beside
// those of other libraries doing the same. Each benchmark has sub-benchmarks by library: `bare` is the floor, where there is one.
//
// What is to be read is the ratio of two sub-benchmarks of one run; go run ./bench/ratios prints it.
package policies
