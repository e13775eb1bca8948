// Package http benchmarks client middleware around one real call over loopback, beside the bare client and other libraries with the
// same policies. What is to be read is the ratio of two sub-benchmarks of one run; go run ./bench/ratios prints it.
package http
