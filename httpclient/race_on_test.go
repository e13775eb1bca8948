//go:build race

package httpclient_test

const underRace = true // the race detector makes everything about ten times as slow
