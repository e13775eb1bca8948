// Package shoppb is the protocol of the shop's gRPC services, generated from shop.proto.
//
// Generating needs protoc (Debian: protobuf-compiler); building does not.
package shoppb

//go:generate sh generate.sh
