// Package ledger is what clusters share in PostgreSQL besides the effects: the key of an
// event ([Key]), which events are committed ([Ledger]), how far each cluster has read its
// streams, and how much redundancy was set for it ([Checkpoints]), failed attempts ([Attempts]), which cluster tries the events that may have
// ended the process of a function ([Suspects]), the subjects that a dead letter blocks ([Blocked]), and how long all of that is remembered ([Retention]).
//
// Package sinkwriter claims and commits events in the same tables; this package reads
// them and keeps the rest. Everything takes a pool of connections to the primary and is
// safe for concurrent use.
package ledger
