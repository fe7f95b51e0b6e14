// Package ledger holds the state, besides the effects, that clusters share in PostgreSQL: the
// key of an event ([Key]), which events are committed ([Ledger]), how far each cluster has read
// its streams and which redundancy was set for it ([Checkpoints]), failed attempts
// ([Attempts]), which cluster tries the events that may have ended the process of a function
// ([Suspects]), the subjects that a dead letter blocks ([Blocked]), and how long all of this is
// kept ([Retention]).
//
// Package sinkwriter claims and commits events in the same tables. This package reads them and
// writes the rest. Every type uses a pool of connections to the primary and is safe for
// concurrent use.
package ledger
