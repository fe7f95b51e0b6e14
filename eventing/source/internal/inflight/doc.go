// Package inflight holds every message that a source has received and not acknowledged, and
// decides what happens to it next: it is the only owner of a message's state. It does no I/O
// and starts no goroutine. A source asks it what to do ([Table.NextRequest],
// [Table.NextLookup]) and reports the results ([Table.Complete], [Table.LookedUp]). One lock
// guards all of it. Package source has the diagram of the states.
//
// # Order of service
//
// Ready entries are delivered in the order in which the stream stored them, so that new events
// never overtake a backlog. While this cluster lags, the blocks of positions that another
// lagging cluster goes first with are left to it (Left). Idle capacity takes them, from the far
// end, after a lookup.
//
// # Failing events
//
// Redeliveries of failing events take at most a tenth of the requests and of the function's
// time (budget.go). A type for which the function is unavailable is probed with one event at a
// time; its other events are held, and released when a probe passes (probe.go). The same holds
// for a type whose events end the process, or hang; of the latter, only events without an
// attempt are held. None of them takes a place that another event could have, except in the
// table itself: it has at most [Table.MaxEntries] messages of a partition.
//
// An event that may have ended the function's process is a suspect. It is looked up, and
// attempted alone until it is known to be harmless, or is a dead letter (suspect.go).
//
// # Memory
//
// The payloads of a partition are bounded by its share of MaxBytes. When they leave no room for
// messages that could be delivered, the payloads of entries that will be sent late are evicted,
// and fetched again by sequence before they are sent. Messages are not returned to the stream.
package inflight
