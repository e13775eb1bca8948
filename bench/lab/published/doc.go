// Package published holds published results on retries, jitter, throttling, hedging and overload, made again with the real policies of Backstay: one test
// for each, in virtual time. Each prints a table of the source, what was published, what came out here, how far the two may be apart, and whether they are
// within that:
//
//	cd bench && go test -v ./lab/published
//
// With -short only the cheapest run. Where a parameter of a model was fitted to the published figure, the table says so: such a row shows
// that the model is the right one, and the rows that follow from it are the result.
package published
