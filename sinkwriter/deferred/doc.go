// Package deferred stores events that only a change of the deployment can fix, such as one
// without a partition for its row, while other events of their function are committed. Such an
// event is acknowledged to its stream, and run again after the change.
//
// The ledger keeps the row of a key for as long as a deferred event of the key exists. So a
// deferred event is never applied twice, however late it is run and whatever else the ledger has
// forgotten: if it was committed before, it is lost. It is deleted in the transaction that
// commits it, or afterwards.
package deferred
