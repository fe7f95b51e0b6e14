// Command bench measures the cost of package sinkwriter, and compares it with
// hand-written code and with the floor: the bare upsert of the same rows.
//
// Package serving measures the cost of accepting an event over HTTP, in a table of its
// own. Package e2e measures the whole path, from stream to stream, with two clusters
// that race and one that stalls.
//
// # Guarantees
//
//   - Everything is measured in one run, on one server that the command itself starts, with the same durability (fsync and
//     synchronous_commit on). The rounds go round robin through the rows, so that a drift of the machine affects all of them.
//   - Each trial has a new database and begins with a checkpoint, so that no trial pays for writes of another.
//   - Each trial is checked: every event is applied once, won once, published once, and the totals are right. A fast wrong result is an
//     error.
//   - Ratios are medians over the rounds of the ratio within a round.
//
// # Not guaranteed
//
// Figures of two runs, and even more of two machines, are only comparable as ratios.
// Client and server share the cores on purpose, so that the cost of the client is
// visible.
package main
