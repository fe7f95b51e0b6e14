// Package protocol is a model of Tandem's handling of an event, small enough to explore every
// state.
//
// Two clusters read the same stream. Each has a source and a function with its connection to
// the database, and one of them has a relay; behind them are the server's sessions, the
// ledger, the tables, the outbox, the progress of both clusters, and the stream of outputs. A
// step is an atomic action of one of them: receive a message, send a claim, look up one key,
// commit, answer, acknowledge, publish, delete. Faults are steps, too, possible at any moment
// and any number of times: a source or a function is killed, a connection is cut with the
// COMMIT on its way, the server ends a session that waits for its client, an acknowledgement
// is lost, the primary is lost with its last commits, a consumer is recreated.
//
// [Model.Explore] visits every reachable state and reports which of these properties does not
// hold:
//
//   - No event is applied twice, and none has two identities among the outputs.
//   - Ledger and tables agree; no output exists without its rows.
//   - Every acknowledged event is committed.
//   - No two sessions wait for each other.
//   - From every state, however many faults led there, everything is eventually applied, emitted and acknowledged if no further faults happen. An output that the stream rejects for good becomes a
//     rejected output instead.
//   - The same is true for applying and emitting if only one of the clusters, either one, takes further steps: no action for the other one is required.
//
// A [Mutant] breaks one rule of the protocol. For each there is a state in which one of the
// properties does not hold, and a path to it. This proves that the model detects these faults.
//
// [Suspects] is a separate model of events that end the process of a function, [Share] one of
// clusters that share the events, and [Deferred] one of a deferred event; all of them have
// mutants of their own.
//
// # Design
//
// The model is in Go and not in Promela or TLA+: it runs with the other tests, needs no
// installation, and can be read by the people who change the code. The temporal logic of a
// model checker is not needed: because the states are finite and each fault may stop
// happening, "eventually" means that an end state can be reached from every state.
//
// Actions with no observable state in between are one step here: to commit and to receive the
// answer, because losing the answer is a fault of its own; to delete from the outbox with the
// next batch, because a separate deletion is equivalent. An outbox row that is reduced as its
// events are stored is modelled as one row per event, and a winner that keeps its row from
// relays as a relay that is late.
//
// The model omits: time (a timeout is a step that may happen at any moment, so the results
// hold for all values), more than two clusters or events, more than one connection of a
// process, and more than one lost connection whose end the server has not noticed. It assumes
// that a request does not outlive the retention of the ledger.
package protocol
