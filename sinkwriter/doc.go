// Package sinkwriter commits what a function computed, once.
//
// The same event is computed in several clusters, and delivered more than once
// in each. All of them offer the same effects under the same [ledger.Key]; the first
// one to commit wins, the others find out without an error and without a
// rollback. Which one wins is decided by the primary key of tandem.ledger and
// by nothing else: no lease, no leader, no clock.
//
// # What is promised
//
//   - A [Receipt] is returned only after the server has acknowledged COMMIT: of
//     this offer, or of the one that had won before.
//   - The rows and the outputs of an event are committed in one transaction.
//     Either all are there or none is.
//   - Outputs are published at least once, each with the source and id that
//     depend only on the function and its input. A consumer that drops repeats
//     sees each one once.
//   - An event can only hurt itself. If its statements fail, in whatever way, or take
//     long, the other events of its batch are committed without it, and it is tried
//     alone. That counts against it only if other events of its function are committed
//     meanwhile: an outage is no event's fault.
//   - A process that is stopped, killed or cut off holds up the others for at
//     most its claim timeout (200 ms) plus its round trip, as long as the server
//     can see it.
//
// # What is not
//
// Nothing is promised about order between events. A function that is not
// deterministic is detected ([Receipt].Diverged), not repaired. While the
// server waits for a synchronous standby, everybody waits.
//
// # Design
//
// Many goroutines call [Writer.Commit]; whoever is free takes all that wait and
// commits them together. A batch has two round trips: claim every event's key,
// then send the effects of those that were won, their outputs, and COMMIT. The
// first key is claimed before the others: if it is lost, another cluster has mostly
// committed all of them, and they are looked up, which takes less. A batch that won
// nothing has no transaction id and writes no WAL.
//
// Keys are claimed in sorted order, and rows are written in one order in all
// clusters (tables with foreign keys after those they refer to, then by primary
// key), so that two batches never wait for each other in a circle.
//
// Docs/postgres.md shows in sessions of psql why it is done so, and says where a
// batch differs from its events one after the other, how large the ledger gets,
// and what roles and settings the database needs.
package sinkwriter
