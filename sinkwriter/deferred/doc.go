// Package deferred stores events that cannot be committed until the deployment changes, for
// example because a table lacks a partition, while other events of their function are
// committed. A deferred event is acknowledged to its stream, and processed again after the
// change.
//
// The ledger keeps the row of a key as long as a deferred event with that key exists. So a
// deferred event is never applied twice, however late it is processed and whatever else the
// ledger has forgotten: if it was committed before, it loses. A deferred event is deleted in
// the transaction that commits it, or afterwards.
package deferred
