package guard

import "context"

// A Row is what the table keeps of one call.
type Row struct {
	Key    string
	Op     Op
	By     Op // who inserted it: an action's row may be taken by its undo
	Epoch  int64
	Done   bool // the result is stored
	Result []byte
}

// A Log keeps the guard's rows within one transaction of the participant.
//
// Its duties:
//
//  1. Claim inserts the row unless one with its Key and Op exists, and says
//     which: (row, true) when inserted, (the row there, false) when not. Two
//     transactions that claim the same row must not both be told true; the
//     second waits until the first is over, or fails with an error.
//  2. When it waited and the first was rolled back, the second inserts.
//  3. Finish stores the result and sets Done. Forget takes the row away again.
//  4. Nothing is visible to others before the transaction commits, and nothing
//     remains when it is rolled back.
//
// A log over a store without transactions (a key-value store with
// compare-and-swap, say) can keep duty 1, but then effect and row are not one:
// a crash between them leaves a row that is not Done, which the guard answers
// with ErrRunning until an operator looks.
type Log interface {
	Claim(ctx context.Context, r Row) (Row, bool, error)
	Finish(ctx context.Context, key string, op Op, result []byte) error
	Forget(ctx context.Context, key string, op Op) error
}

// A Runner makes guarded calls in transactions of its own: *[DB], *[Memory],
// and the runner of sagapgx.
//
// Run commits if fn returns nil and rolls back if not. fn may run more than
// once, each time in a new transaction, after the one before was rolled back
// because of a deadlock or the like. The error wraps ErrRunning when another
// call with the same key is running.
type Runner interface {
	Run(ctx context.Context, c Call, fn Func) (Answer, error)
}
