// Package sinkwriter commits the effects of an event exactly once, however many
// clusters compute them.
//
// Several clusters process the same event, and each may process it more than once. All
// of them offer the same effects under the same [ledger.Key]. The first commit wins;
// the others learn that they lost, without an error and without a rollback. The
// primary key of tandem.ledger alone decides which one wins: there is no lease, no
// leader and no clock.
//
// # Guarantees
//
//   - A [Receipt] is returned only after the server has acknowledged COMMIT, of this offer or of the one that won before.
//   - The rows and the outputs of an event are committed in one transaction: all or none.
//   - Outputs are published at least once. Their source and id depend only on the function and its input, so that a consumer
//     that deduplicates on them sees each output once.
//   - An event can only harm itself. If its statements fail or are slow, the other events of its batch are committed without it,
//     and it is retried alone. A failure counts against it only if other events of its function are committed meanwhile: an
//     outage is not the fault of an event.
//   - A process that is paused, killed or cut off blocks the others for at most its claim timeout (200 ms) plus its round trip,
//     as long as the server notices.
//
// # Not guaranteed
//
// Events are not ordered. A function that is not deterministic is detected
// ([Receipt].Diverged), not corrected. While the server waits for a synchronous
// standby, all commits wait.
//
// # Design
//
// Many goroutines call [Writer.Commit]. A worker takes all waiting offers and commits
// them together as a batch. A batch has two round trips: the first claims the key of
// every event; the second sends the effects of the offers that won, their outputs, and
// COMMIT. The first key is claimed before the others. If it is lost, another cluster
// has usually committed all of them, and they are looked up, which is cheaper. A batch
// that won nothing has no transaction id and writes no WAL.
//
// Keys are claimed in sorted order. All clusters write rows in the same order: tables
// with foreign keys after the tables that they reference, then by primary key. So two
// batches never deadlock.
//
// docs/postgres.md demonstrates the reasons in psql sessions. It also describes where
// the result of a batch differs from committing its events one by one, how large the
// ledger grows, and which roles and settings the database needs.
package sinkwriter
