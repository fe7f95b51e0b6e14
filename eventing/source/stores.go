package source

import (
	"context"
	"time"

	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Checkpoints stores the progress of a cluster in its streams, and knows the other clusters and the
// wanted hedge. It must be stored in the same database as the function's effects, so that a
// failover that loses commits also loses the checkpoints saved after them. [ledger.Checkpoints]
// implements it on PostgreSQL. It must be safe for concurrent use.
type Checkpoints interface {
	// Load returns the stored checkpoint of function in stream, and the current
	// timeline of the database, which changes with a failover. If the checkpoint was
	// saved on another timeline, commits made since may be lost.
	Load(ctx context.Context, function, stream string) (saved ledger.Checkpoint, timeline string, err error)

	// Save stores update if the stored checkpoint is still last and the timeline is
	// still that of last; an update that starts a rewind ignores the timeline. It
	// returns the stored checkpoint. If ok is false, nothing was stored: call Load
	// again. Called about once a second.
	Save(ctx context.Context, function, stream string, update ledger.CheckpointUpdate, last ledger.Checkpoint) (now ledger.Checkpoint, ok bool, err error)

	// Horizon returns the sequence below which the ledger may have forgotten the events
	// of function, because every cluster has acknowledged them. 0 means that nothing
	// was forgotten. Called when a stream is opened.
	Horizon(ctx context.Context, function, stream, epoch string) (uint64, error)

	// Hedge returns the hedge that was set for function in this cluster at run time, as
	// [eventing.ParseHedge] parses it; empty if none was set. Called once a second, if
	// there is a [Config.Ledger].
	Hedge(ctx context.Context, function string) (string, error)

	// StandBy reports whether this cluster may stand by for function, and records that
	// it does until EndStandBy. It may not if no other cluster is active. Save does not
	// change this record. Called once a second while the cluster is to stand by.
	StandBy(ctx context.Context, function string) (granted bool, err error)

	// EndStandBy records that this cluster does not stand by for function. Called once
	// a second while it does not.
	EndStandBy(ctx context.Context, function string) error
}

// Blocked knows the dead letters without a verdict. A [Source] that keeps the order holds
// back the later events of their subjects, and stores them until there is a verdict.
// [ledger.Blocked] implements it on PostgreSQL.
type Blocked interface {
	// List returns the events of function that are dead in this cluster, have a
	// subject, and are committed in no cluster.
	List(ctx context.Context, function string) ([]ledger.BlockedEvent, error)

	// Still returns those of the events whose dead letter is still stored and which no
	// cluster has committed. The keys of the result have no subject.
	Still(ctx context.Context, function string, events []ledger.BlockedEvent) (map[ledger.BlockedEvent]bool, error)

	// Store stores events that wait behind a dead letter, in their order, and reports for
	// each whether this call stored it; false means that it was stored before. It stores
	// all events or none.
	Store(ctx context.Context, function string, events []ledger.StoredEvent) ([]bool, error)

	// Stored returns the numbers of stored events, by subject.
	Stored(ctx context.Context, function string) ([]ledger.StoredCount, error)

	// Load returns the first limit stored events of each subject, by position.
	Load(ctx context.Context, function string, subjects []string, limit int) ([]ledger.StoredEvent, error)

	// Delete deletes stored events by their positions.
	Delete(ctx context.Context, function string, positions []int64) error
}

// Deferred stores the events of this cluster that only a change of the deployment can fix.
// [deferred.Store] implements it on PostgreSQL. It must be safe for concurrent use.
type Deferred interface {
	// Defer stores events of function, in their order, and returns the result for each. The
	// first event of a fingerprint is due after the time until. It stores all events or none.
	Defer(ctx context.Context, function string, events []deferred.Event, until time.Duration) ([]deferred.Result, error)

	// Counts returns the numbers of deferred events, by fingerprint. Elsewhere returns the
	// reasons for which other clusters have deferred events.
	Counts(ctx context.Context, function string) ([]deferred.Count, error)
	Elsewhere(ctx context.Context, function string) ([]deferred.Lack, error)

	// Due returns the first limit events that are due. After returns the first limit
	// events of a fingerprint after a position that may run and are not due.
	Due(ctx context.Context, function string, limit int) ([]deferred.Row, error)
	After(ctx context.Context, function, fingerprint string, position int64, limit int) ([]deferred.Row, error)

	// Schedule makes one event of each fingerprint due after a wait: the first one from a
	// position on. Postpone records that an event has failed again, and is not due any
	// more.
	Schedule(ctx context.Context, function string, fingerprints []string, positions []int64, wait time.Duration) error
	Postpone(ctx context.Context, function string, e deferred.Event) error

	// DeleteCommitted deletes the committed ones of the events of all clusters; the others
	// are not due any more. Delete deletes events of this cluster.
	DeleteCommitted(ctx context.Context, keys []ledger.Key) error
	Delete(ctx context.Context, keys []ledger.Key) error

	// Catalog returns a number that changes with the catalog of the database.
	Catalog(ctx context.Context) (int64, error)
}

// Attempts stores the failed attempts of events that break a function, so that a source
// that restarts continues counting. [ledger.Attempts] implements it on PostgreSQL.
type Attempts interface {
	// Save stores the attempts of messages, and deletes those of finished sequences.
	// Stream and epoch are those of [Checkpoints]. Called about once a second if anything
	// changed.
	Save(ctx context.Context, function, stream, epoch string, attempts []ledger.EventAttempts, settled []uint64) error

	// Load returns the stored attempts, and the number of those stored for another epoch,
	// which it deletes. Called when a stream is opened.
	Load(ctx context.Context, function, stream, epoch string) (attempts []ledger.EventAttempts, stale int, err error)
}

// Suspects lets one cluster at a time attempt an event that may have ended the function's
// process. [ledger.Suspects] implements it on PostgreSQL. It must be safe for concurrent
// use.
type Suspects interface {
	// Lease takes or extends the leases of suspects, and returns the keys of the leases that
	// this cluster has. They expire after a time by a clock that all clusters share.
	Lease(ctx context.Context, suspects []ledger.Key, expires time.Duration) (held []ledger.Key, err error)

	// Release ends the leases that this cluster has on suspects.
	Release(ctx context.Context, suspects []ledger.Key) error

	// DeadElsewhere reports whether a suspect is a dead letter of another cluster.
	DeadElsewhere(ctx context.Context, suspect ledger.Key) (bool, error)
}

// Ledger looks up which events are committed, by any cluster.
type Ledger interface {
	// Committed reports, for each event, whether function has committed it. An event
	// reported as uncommitted may be committed a moment later.
	Committed(ctx context.Context, function string, events []EventID) ([]bool, error)
}

// Peers knows the clusters that deliver the same function. [ledger.Checkpoints]
// implements it on PostgreSQL.
type Peers interface {
	// Clusters returns the clusters of function, including this one, with the time
	// since each saved its checkpoint.
	Clusters(ctx context.Context, function string) ([]ledger.ClusterStatus, error)
}
