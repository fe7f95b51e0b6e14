// Command peers has the others do what Tandem does: flights from a stream of
// JetStream, read in two clusters, a row and a total for each, repeats known by source
// and id, an event for each long delay published once. By hand, with Watermill, with
// DBOS, with River, and Tandem itself. It measures each and kills a cluster of each.
//
// # What is promised
//
//   - One PostgreSQL and one NATS server for all, started by the command, equally
//     durable (fsync and synchronous_commit on). Each trial has a new database and new
//     streams and begins with a checkpoint. The rounds go round robin through the peers.
//   - Each trial is compared with the truth: every event applied once, totals exact,
//     every output there. A fast wrong answer is an error.
//   - Each peer is configured as its documentation advises for speed (package consume,
//     with the reasons in [peers]), is tried with several concurrencies beforehand, and
//     is measured with the best one.
//
// # What is not
//
// Figures of two runs, let alone of two machines, compare only as ratios. Clients and
// servers share the cores, on purpose: what a client costs shows.
package main
