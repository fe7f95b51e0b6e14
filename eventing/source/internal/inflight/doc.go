// Package inflight holds every message that a source has received and not acknowledged,
// and decides what happens to it next: it is the one owner of a message's state. It does
// no I/O and starts no goroutine; a source asks it what to do ([Table.NextRequest],
// [Table.NextLookup]) and reports what came of it ([Table.Complete], [Table.LookedUp]).
// One lock guards all of it. The states of a message, and what moves it from one to the
// next, are drawn in package source.
//
// # Order of service
//
// Ready entries are delivered in the order in which the stream stored them, so that new
// events never overtake a backlog. While this cluster lags, the blocks of positions that
// another lagging cluster goes first with are left to it (Left); idle capacity takes
// them, from the far end, after a lookup.
//
// # Failing events
//
// Redeliveries of failing events take at most a tenth of the requests and of the function's
// time (budget.go). A type for which the function is unavailable is probed with one event at a
// time; the others of it are held, and released when a probe passes (probe.go). So is a type
// whose events end the process, or hang; of the latter, only those that were not tried yet
// are held. None of them takes a place that another event could have, but for the table itself:
// it has at most [Table.MaxEntries] messages of a partition.
//
// An event that may have ended the function's process is a suspect. It is looked up, and
// tried alone until it is known to be harmless, or a dead letter (suspect.go).
//
// # Memory
//
// The payloads of a partition are bounded by its share of MaxBytes. When they leave no room
// for messages that could be delivered, those of entries whose turn is far are evicted,
// and fetched again by sequence when it comes. Nothing is handed back to the stream.
package inflight
