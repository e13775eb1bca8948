package grpcclient

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/backstay-go/backstay/retry"
)

// ServiceConfig returns what c and m come to in a service config, for those who want gRPC's own retry (gRFC A6): in other languages, or where a policy in
// this process is too much. Give it to grpc.WithDefaultServiceConfig, and leave [DialOptions] out, since that switches gRPC's own retry off.
//
// Methods of the table are repeated whose Repeat is "yes", or whose .proto says so. gRPC's own retry has at most 5
// attempts, jitter of ±20 % and a budget for each server name (10 tokens, 0.1 back for each success); it has no timeout of an attempt, no hedges, no
// RetryInfo, and no choice for a single call.
//
// It panics when c or m is not valid. Schedules other than the exponential one, and Backoff, cannot be said and panic too.
func ServiceConfig(c retry.Config, m Methods) string {
	if err := c.Validate(); err != nil {
		panic(err)
	}
	if err := m.Validate(); err != nil {
		panic(err)
	}
	if c.Backoff != nil || c.Schedule != "" && c.Schedule != retry.Exponential || c.Jitter == retry.Decorrelated {
		panic(fmt.Errorf("grpcclient: ServiceConfig: a service config has the exponential schedule alone"))
	}
	config := serviceConfig{RetryThrottling: &throttling{MaxTokens: 10, TokenRatio: 0.1}}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		entry := methodConfig{Name: []methodName{nameOf(key)}}
		if e := m[key]; e.Repeat == "yes" || e.Repeat == "" && annotated(key) != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
			entry.RetryPolicy = policyOf(c, e)
		}
		config.MethodConfig = append(config.MethodConfig, entry)
	}
	text, err := json.Marshal(config)
	if err != nil {
		panic(err) // a number that is none, which Validate refuses
	}
	return string(text)
}

type serviceConfig struct {
	MethodConfig    []methodConfig `json:"methodConfig,omitempty"`
	RetryThrottling *throttling    `json:"retryThrottling,omitempty"`
}

type methodConfig struct {
	Name        []methodName `json:"name"`
	RetryPolicy *retryPolicy `json:"retryPolicy,omitempty"`
}

type methodName struct {
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
}

type retryPolicy struct {
	MaxAttempts          int      `json:"maxAttempts"`
	InitialBackoff       string   `json:"initialBackoff"`
	MaxBackoff           string   `json:"maxBackoff"`
	BackoffMultiplier    float64  `json:"backoffMultiplier"`
	RetryableStatusCodes []string `json:"retryableStatusCodes"`
}

type throttling struct {
	MaxTokens  float64 `json:"maxTokens"`
	TokenRatio float64 `json:"tokenRatio"`
}

// nameOf returns how a service config names what a key of [Methods] does.
func nameOf(key string) methodName {
	if key == "*" {
		return methodName{} // all
	}
	service, method, _ := splitMethod(key)
	if method == "*" {
		method = ""
	}
	return methodName{Service: service, Method: method}
}

// policyOf returns the retry of one entry, or nil for none.
func policyOf(c retry.Config, e Method) *retryPolicy {
	attempts := c.Attempts
	if e.Attempts != 0 {
		attempts = e.Attempts
	}
	switch {
	case attempts == 0:
		attempts = 3
	case attempts < 0 || attempts > 5:
		attempts = 5
	}
	if attempts == 1 {
		return nil
	}
	most := c.MaxDelay
	if most < 0 { // no bound, which cannot be said
		most = 24 * time.Hour
	}
	p := &retryPolicy{
		MaxAttempts: attempts, InitialBackoff: seconds(c.Delay, 100*time.Millisecond), MaxBackoff: seconds(most, max(5*time.Second, c.Delay)),
		BackoffMultiplier: c.Factor, RetryableStatusCodes: e.RetryOn,
	}
	if p.BackoffMultiplier == 0 {
		p.BackoffMultiplier = 2
	}
	if p.RetryableStatusCodes == nil {
		p.RetryableStatusCodes = []string{"UNAVAILABLE"}
	}
	return p
}

// seconds writes a duration as proto's JSON does. gRPC wants it above 0.
func seconds(d, def time.Duration) string {
	if d == 0 {
		d = def
	}
	if d < 0 {
		d = time.Millisecond
	}
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
