// Package e2e measures the whole path of an event: from the shared stream through a source,
// over HTTP to a function, into the database, until its output is stored in the stream. Both
// clusters race. Consumers written by hand are measured beside them.
//
// # Guarantees
//
//   - Source, function, consumer by hand and NATS are separate processes, built as for an image, but with symbols. The streams are files. The
//     caller provides the database, which should be as durable as in production.
//   - A trial has a new database and new streams. For a rate the stream is filled before; the time counts from the first output that the stream has
//     stored to the last one, by the stream's clock. For latencies an open loop publishes at a steady rate whatever the outcome, and a latency is
//     from that moment until the stream has stored the output.
//   - Each trial is checked: each event applied once, each output once in the stream, nothing left in the outbox.
//   - The rounds go round robin through the rows, and ratios are medians over the rounds of the ratio within a round.
//
// With a full stream the clusters lag, so their sources look events up in the ledger before
// they deliver, and each computes the events that the other has not committed. A row whose name
// has no suffix sets no tuning variable of a source.
//
// A race row has the highest rate that an open loop sustains: the lag of each cluster stays
// below a second, and each cluster computes everything. A trial of less than 30 s sustains a
// rate only if its final lag is so low that it would stay below a second for 30 s. The function
// of a trial counts its computations. A lag counts events: the lag of a cluster that has
// acknowledged n events is the time since the next one was due.
//
// Rows named burn-… compare the modes of redundancy: race, hedge, share and standby. Their
// function uses 1 ms of processor time per event, by the clock of the thread. Only in the race
// does each cluster have to compute everything. An acknowledgement that is late because the
// cluster waits for the other one is not a lag: with share the lag is that of the outputs. When
// a cluster is lost, latencies are measured until the commit, because the outputs that it
// committed and did not publish follow later.
//
// Latencies are measured at a fraction of that rate, of the same round, so that other load on
// the machine affects both.
//
// # Not guaranteed
//
// Everything shares the cores of one machine: the two clusters, the database and NATS.
// Processor time that one saves is used by another. NATS syncs its files to the disk as often
// as the sync mode of the row specifies, which is not before each acknowledgement unless it is
// "always".
package e2e
