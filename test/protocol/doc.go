// Package protocol is a model of what Tandem does with an event, small enough to
// look at every way in which it can go.
//
// Two clusters read the same stream. Each has a source and a function with its
// connection to the database, and one of them a relay; behind them are the server's
// sessions, the ledger, the tables, the outbox, the progress of both, and the stream
// of outputs. A step is what one of them does by itself: to take a message, to send a
// claim, to look at one key, to commit, to answer, to acknowledge, to publish, to
// delete. Faults are steps too, at any moment and as often as they like: a source
// or a function is killed, a connection is cut with the COMMIT on its way, the
// server ends a session that waits for its client, an acknowledgement is lost, the
// primary is lost with its last commits, a consumer is made anew.
//
// [Model.Explore] visits every state that can be reached and says which of these
// does not hold:
//
//   - No event is applied twice, and none has two identities among the outputs.
//   - Ledger and tables say the same; no output is there without its rows.
//   - Nothing is acknowledged that is not committed.
//   - No two sessions wait for each other.
//   - From every state, however many faults led there, everything is applied,
//     emitted and acknowledged if no more of them happen. An output that the stream
//     rejects for good is set aside instead.
//   - And so it is applied and emitted if only one of the clusters, whichever,
//     takes another step: nobody has to do anything about the other one.
//
// A [Mutant] breaks one rule of the protocol. For each there is a state in which
// one of the above does not hold, and the steps that lead there: so the model can
// see what it is there to see.
//
// [Suspects] is a model of its own, of events that end the process of a function, [Share] one
// of clusters that share the events, and [Deferred] one of an event that is deferred; all have
// mutants of their own.
//
// # Design
//
// It is Go and not Promela or TLA+, since it then runs with the other tests, needs
// nothing installed, and is read by who changes the code that it is a model of.
// What a model checker would add, a logic for properties, is not needed: since the
// states are finitely many and each fault may stop to happen, "eventually" is that
// an end can be reached from everywhere.
//
// Steps that nobody can see between are one here: to commit and to hear of it, since
// not to hear of it is a fault of its own; to delete from the outbox with the next
// batch, since by itself is the same for everybody else. A row of the outbox that is
// reduced as its events are stored is a row for each event here, and a winner that keeps
// its row from relays is a relay that comes late.
//
// What it leaves out: time (a timeout is a step that may come at any moment, so
// what holds here holds for any values of them), more than two clusters or events,
// more than one connection of a process, and more than one that was lost and whose
// end the server has not seen. That a request does not outlive the retention of
// the ledger is taken for granted.
package protocol
