// Command peers compares Tandem with other libraries on the same work: flights from a
// JetStream stream, read in two clusters, a row and a total for each, duplicates
// recognised by source and id, one event published for each long delay. The peers are
// code by hand, Watermill, DBOS, River, and Tandem itself. The command measures each and
// kills a cluster of each.
//
// # Guarantees
//
//   - One PostgreSQL and one NATS server for all, started by the command, with the same durability (fsync and synchronous_commit on). Each trial has a new database and new streams and begins with a
//     checkpoint. The rounds go round robin through the peers.
//   - Each trial is compared with the truth: every event applied once, totals exact, every output published. A fast wrong result is an error.
//   - Each peer is configured as its documentation advises for speed (package consume, with the reasons in [peers]), is tried with several concurrencies beforehand, and is measured with the best one.
//
// # Not guaranteed
//
// Figures of two runs, and even more of two machines, are only comparable as ratios.
// Clients and servers share the cores on purpose, so that the cost of a client is
// visible.
package main
