// Command bench measures what package sinkwriter costs, beside what people
// would write by hand and beside the floor under both: the bare upsert of the
// same rows.
//
// Package serving, beside it, measures what it costs to take an event over HTTP, in a
// table of its own; package e2e the whole way, from stream to stream, with two clusters
// racing and one of them stalling.
//
// # What is promised
//
//   - Everything is measured in one run, on one server that the command starts
//     itself, equally durable (fsync and synchronous_commit on). The rounds go
//     round robin through the rows, so that a drift of the machine hits all.
//   - Each trial has a new database and begins with a checkpoint, so none pays
//     for what another has written.
//   - Each trial is checked: every event applied once, won once, published
//     once, totals right. A fast wrong answer is an error.
//   - Ratios are medians over the rounds of the ratio within a round.
//
// # What is not
//
// Figures of two runs, let alone of two machines, compare only as ratios.
// Client and server share the cores, as they do here on purpose: what the
// client costs shows.
package main
