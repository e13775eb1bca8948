//go:build !race

package httpclient_test

const underRace = false
