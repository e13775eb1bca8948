// Package mutants holds small planted bugs, one patch file each, and the test that applies them one at a time and expects another
// test to notice. A mutant that nobody notices shows a rule that no test holds.
//
// The first line of a patch file says in words what is broken. The second names the test that must notice: the folder of its module and the
// arguments of go test. After an empty line follows a unified diff with paths below the root of the repository.
//
//	mutant: a result of an earlier state is counted
//	test: . ./breaker -run TestStale
//
//	--- a/breaker/breaker.go
//	+++ b/breaker/breaker.go
//	…
//
// The source is left alone: the patched files are put over it with go test -overlay.
package mutants
