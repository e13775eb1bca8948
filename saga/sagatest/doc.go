// Package sagatest tests sagas and their stores.
//
// For the author of a saga, [Run] takes a definition whose participants are fakes, and runs it on the memory store and on virtual
// time in every way that a saga goes wrong: a crash, a lost answer or a frozen owner at every checkpoint, forward and compensating;
// every body called twice; every step failing in three ways; actions that arrive after their undo; branches that end in
// many orders. After each run the log must keep the rules of every saga ([Invariants]) and the participants must be
// as the definition's author says.
//
//	func TestPlaceOrder(t *testing.T) {
//		sagatest.Run(t, sagatest.Trial[Order]{New: newTrial, Input: Order{Item: "lamp"}})
//	}
//
//	func newTrial() (*saga.Definition[Order], func(saga.State) error) {
//		w := &sagatest.World{} // counts effects by key, or use fakes of your own
//		return placeOrder(w), func(end saga.State) error {
//			if left := w.Net(); end == saga.Compensated && len(left) > 0 {
//				return fmt.Errorf("left behind: %v", left)
//			}
//			return nil
//		}
//	}
//
// [Compatible] holds the graph of a version in a file.
//
// For the author of a store, [TestStore] checks the duties of saga.Store one by one, each with the rule that it
// checks, and [TestEngine] runs the acceptance cases of sagas on it.
package sagatest
