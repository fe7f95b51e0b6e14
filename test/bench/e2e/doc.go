// Package e2e measures the whole way of an event: from the shared stream through a
// source, over HTTP to a function, into the database, until its output is stored in the
// stream; both clusters racing, and beside them the same written by hand.
//
// # What is promised
//
//   - Source, function, pipeline by hand and NATS are processes of their own, built as
//     for an image but for symbols; the streams are files; the database is the one that
//     the caller gives, which is to be as durable as in earnest.
//   - A trial has a new database and new streams. For a rate the stream is filled before;
//     it counts from the first output that the stream has stored to the last one, by the
//     stream's clock. For latencies an open loop publishes at a steady rate whatever comes
//     of it, and a latency is from that moment until the stream has stored the output.
//   - Each trial is checked: each event applied once, each output once in the stream,
//     nothing left in the outbox.
//   - The rounds go round robin through the rows, and ratios are medians over the rounds
//     of the ratio within a round.
//
// With a stream that is full the clusters lag, so their sources look events up in the
// ledger before they deliver, and each computes what the other has not done. A row whose
// name has no suffix sets no variable that tunes a source.
//
// A race row has the highest rate of an open loop that is held: the lag of each cluster
// stays below a second, and each computes everything. A trial of less than 30 s holds a
// rate only if the lag is so low in its end that it would stay below a second for 30 s. The function of a trial counts what it computes. A lag counts events: that of
// a cluster that has acknowledged n events is the time since the next one was due.
//
// Rows named burn-… compare how much redundancy there is: race, hedge, share and standby. Their
// function uses 1 ms of processor time per event, by the clock of the thread. Only in the
// race each cluster has to compute everything. What a cluster acknowledges late because it
// waits for the other one is no lag: with share the lag is that of the outputs. When a
// cluster is lost, latencies are until the commit: outputs that it has committed and not
// published follow later.
//
// Latencies are measured at a share of that rate, of the same round, so that the machine's
// other work changes both.
//
// # What is not
//
// Everything is on one machine and shares its cores, the two clusters, the database and
// NATS: processor time that one saves is used by another. NATS syncs its files to the disk as
// often as the sync mode of the row says, which is not before each acknowledgement
// unless it is "always".
package e2e
