// Package grpc benchmarks client middleware around one real call over loopback, beside the bare connection and other libraries. What is to be read is the
// ratio of two sub-benchmarks of one run; go run ./bench/ratios ./bench/grpc prints it.
package grpc
