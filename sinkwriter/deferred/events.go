package deferred

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	deferredFilter = ` from tandem.deferred_event d where ($1 = '' or d.function = $1) and ($2 = '' or d.source = $2)
and ($3 = '' or hashtextextended(d.id, 0) = hashtextextended($3, 0) and d.id = $3) and ($4 = '' or d.type = $4)
and ($5 = '' or d.cluster = $5) and ($6 = '' or strpos(lower(d.fingerprint), lower($6)) > 0)
and ($7::timestamptz is null or d.first_failed_at >= $7) and ($8::timestamptz is null or d.first_failed_at < $8) `

	// From the event after ($9, $10, $11, $12) on, the oldest first.
	listDeferredSQL = `select d.function, d.source, d.id, d.type, min(d.subject), array_agg(d.cluster order by d.cluster), (array_agg(d.fingerprint order by d.last_failed_at desc, d.cluster))[1],
    (array_agg(d.version order by d.last_failed_at desc, d.cluster))[1], bool_and(d.held), sum(d.attempts)::bigint, min(d.first_failed_at), max(d.last_failed_at), min(d.next_run_at)` +
		deferredFilter + `group by d.function, d.source, d.id, d.type
having $9::timestamptz is null or (min(d.first_failed_at), d.function, d.source, d.id) > ($9, $10, $11, $12)
order by min(d.first_failed_at), d.function, d.source, d.id limit $13`

	readDeferredSQL = `select cluster, stream, epoch, sequence::text, arrived_at, version, fingerprint, reason, held, attempts, first_failed_at, last_failed_at, next_run_at, event
from tandem.deferred_event where function = $1 and source = $2 and hashtextextended(id, 0) = hashtextextended($3, 0) and id = $3 order by cluster`

	runDeferredSQL = `update tandem.deferred_event set next_run_at = now() where function = $1 and source = $2 and hashtextextended(id, 0) = hashtextextended($3, 0) and id = $3`

	dropDeferredSQL = `delete from tandem.deferred_event where function = $1 and source = $2 and hashtextextended(id, 0) = hashtextextended($3, 0) and id = $3`
)

// ErrNotFound means that an event is not deferred, or no longer is.
var ErrNotFound = errors.New("it is not deferred")

// Deferred is a deferred event, one row per cluster.
type Deferred struct {
	Function      string     `json:"function"`
	Source        string     `json:"source"`
	ID            string     `json:"id"`
	Type          string     `json:"type"`
	Subject       string     `json:"subject,omitempty"`
	Clusters      []string   `json:"clusters"`
	Fingerprint   string     `json:"fingerprint"` // the missing object; from the cluster where it last failed
	Version       string     `json:"version"`     // of the function; from the cluster where it last failed
	Held          bool       `json:"held"`        // it runs only when a person requests it
	Attempts      int64      `json:"attempts"`    // of all clusters
	FirstFailedAt time.Time  `json:"first_failed_at"`
	LastFailedAt  time.Time  `json:"last_failed_at"`
	NextRunAt     *time.Time `json:"next_run_at,omitempty"`
}

// ClusterEvent is the deferred event of one cluster.
type ClusterEvent struct {
	Cluster       string     `json:"cluster"`
	Stream        string     `json:"stream"`
	Epoch         string     `json:"epoch,omitempty"`
	Sequence      string     `json:"sequence"`
	ArrivedAt     time.Time  `json:"arrived_at"`
	Version       string     `json:"version"`
	Fingerprint   string     `json:"fingerprint"`
	Reason        string     `json:"reason"`
	Held          bool       `json:"held"`
	Attempts      int64      `json:"attempts"`
	FirstFailedAt time.Time  `json:"first_failed_at"`
	LastFailedAt  time.Time  `json:"last_failed_at"`
	NextRunAt     *time.Time `json:"next_run_at,omitempty"`
	Event         []byte     `json:"-"` // the CloudEvent in JSON
}

// Filter selects deferred events. The zero value of a field selects all.
type Filter struct {
	Function, Source, ID, Type, Cluster string

	// Fingerprint is a part of the fingerprint, regardless of case.
	Fingerprint string

	// Since and Until bound the first failure.
	Since, Until time.Time
}

// Events lists, runs and drops the deferred events of all clusters. Its role must be the one
// that migrates. It is safe for concurrent use.
type Events struct{ pool *pgxpool.Pool }

// NewEvents returns the deferred events of the database behind pool.
func NewEvents(pool *pgxpool.Pool) *Events { return &Events{pool: pool} }

// List returns at most limit deferred events, oldest first. If after is not nil, the list
// starts behind that event.
func (v *Events) List(ctx context.Context, f Filter, after *Deferred, limit int) ([]Deferred, error) {
	var from Deferred
	if after != nil {
		from = *after
	}
	rows, err := v.pool.Query(ctx, listDeferredSQL, f.Function, f.Source, f.ID, f.Type, f.Cluster, f.Fingerprint, orNull(f.Since), orNull(f.Until),
		orNull(from.FirstFailedAt), from.Function, from.Source, from.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("list deferred events: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Deferred])
	if err != nil {
		return nil, fmt.Errorf("list deferred events: %w", err)
	}
	return list, nil
}

// Read returns the deferred events of all clusters, or [ErrNotFound].
func (v *Events) Read(ctx context.Context, function, source, id string) ([]ClusterEvent, error) {
	rows, err := v.pool.Query(ctx, readDeferredSQL, function, source, id)
	if err != nil {
		return nil, fmt.Errorf("read deferred event %s of %s: %w", id, source, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ClusterEvent])
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read deferred event %s of %s: %w", id, source, err)
	}
	return list, nil
}

// Run schedules a deferred event to run now in every cluster, or returns
// [ErrNotFound].
func (v *Events) Run(ctx context.Context, function, source, id string) error {
	return v.change(ctx, "run", runDeferredSQL, function, source, id)
}

// Drop deletes a deferred event of all clusters permanently, or returns
// [ErrNotFound].
func (v *Events) Drop(ctx context.Context, function, source, id string) error {
	return v.change(ctx, "drop", dropDeferredSQL, function, source, id)
}

func (v *Events) change(ctx context.Context, what, sql, function, source, id string) error {
	tag, err := v.pool.Exec(ctx, sql, function, source, id)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s deferred event %s of %s: %w", what, id, source, err)
	}
	return nil
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
