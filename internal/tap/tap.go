// Package tap is what the root package and package telemetry know of each other, and nobody else need.
package tap

// Key is the key of a context's value that is the observer of the calls made with it: what backstay.WithObserver sets.
type Key struct{}

// Timeless is embedded by an observer that has no use for how long attempts took: where all observers of a call are so, the clock is not read for it.
type Timeless struct{}

// Timeless says so to a pipeline.
func (Timeless) Timeless(Key) {}
