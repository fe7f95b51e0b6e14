// Package consume is the consumer of one cluster, written with each of the libraries
// that Tandem is compared with. It reads the flights from the stream EVENTS,
// deduplicates on source and id, writes the flight's row, adds to its airport's
// totals, and for a long delay publishes one event, once, with a stable id.
//
// # Design
//
// Each is written as its documentation advises, with the options that it offers for
// speed. The effects are one statement in all of them, so that round trips only
// count if they belong to the library. [Settings], which the report prints, lists
// the configuration and its sources. A fault of the benchmark itself (an event that
// cannot be read) ends the process, so that no figure hides it.
package consume
