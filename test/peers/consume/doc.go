// Package consume is the consumer of one cluster, as people would write it with each
// of the libraries that Tandem is measured beside: take the flights from the stream
// EVENTS, know a repeat by source and id, write the flight's row, add to its
// airport's totals, and publish one event for a long delay, once, with an id that
// stays the same.
//
// # Design
//
// Each is written as its documentation advises, with what it offers for speed; the
// effects are one statement in all of them, so that nobody pays for round trips that
// are not the library's. What is configured, and where that is advised, is in
// [Settings], which the report prints. What would be a fault of ours (an event that
// cannot be read) ends the process, so that no figure hides it.
package consume
