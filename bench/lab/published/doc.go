// Package published holds published results on retries, jitter, throttling, hedging and overload, made again with the real policies of Backstay: one test
// for each, in virtual time. Each prints a table of the source, what was published, what came out here, how far the two may be apart, and whether they are
// within that:
//
//	cd bench && go test -v ./lab/published
//
// With -short only the cheapest run. Where a parameter of a model was fitted to a published figure, the table says so: that row only shows that the model can
// give the figure, and the rows that were not fitted are the result. "As quoted" is a figure that was read in pages which quote the source.
package published
