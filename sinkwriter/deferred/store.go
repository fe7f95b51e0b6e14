package deferred

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// In each cluster at most MaxEvents events of a function are deferred, of at most
// MaxBytes together.
const (
	MaxEvents = 100_000
	MaxBytes  = 1 << 30
)

const (
	// An event is stored unless it is in the ledger, or below the horizon, below which the
	// ledger may have forgotten it. Both are read in one snapshot, and a sweep moves the
	// horizon before it deletes. An event that is not proven is stored only if another cluster
	// has deferred it for the same reason and version. The first event of a fingerprint is
	// scheduled to run. The lease is locked, so that no other replica stores events meanwhile.
	storeDeferredSQL = `with fence as (
    select 1 from tandem.source_lease where function = $1 and cluster = $2 and array[site, replica, epoch::text] = $21::text[] for share
), allowed as materialized (
    select $21::text[] is null or exists (select from fence) as allowed
), asked as materialized (
    select u.*, exists (select from tandem.ledger l where l.key = u.key) as committed,
        coalesce(u.sequence::numeric < (select h.floor from tandem.horizon h where h.function = $1 and h.stream = u.stream and h.epoch = u.epoch), false) as below,
        u.proven or exists (select from tandem.deferred_event o where o.key = u.key
            and (o.cluster = $2 or o.fingerprint = u.fingerprint and o.version = u.version)) as shown
    from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::timestamptz[],
        $12::text[], $13::text[], $14::text[], $15::boolean[], $16::integer[], $17::double precision[], $18::bytea[], $19::boolean[])
    with ordinality as u(key, source, id, type, subject, stream, epoch, sequence, arrived_at,
        version, fingerprint, reason, held, attempts, failing, event, proven, n)
), stored as (
    insert into tandem.deferred_event (key, cluster, function, source, id, type, subject, stream, epoch, sequence, arrived_at,
        version, fingerprint, reason, held, attempts, first_failed_at, next_run_at, event)
    select a.key, $2, $1, a.source, a.id, a.type, a.subject, a.stream, a.epoch, a.sequence::numeric, a.arrived_at,
        a.version, a.fingerprint, a.reason, a.held, a.attempts, now() - a.failing * interval '1 second',
        case when not a.held and row_number() over (partition by a.fingerprint, a.held order by a.n) = 1
            and not exists (select from tandem.deferred_event o where o.function = $1 and o.cluster = $2 and o.fingerprint = a.fingerprint and o.next_run_at is not null)
            then now() + $20::double precision * interval '1 second' end, a.event
    from asked a where not a.committed and not a.below and a.shown and (select allowed from allowed)
    order by a.n on conflict do nothing
) select a.committed, a.below, a.shown, (select allowed from allowed) from asked a order by a.n`

	countDeferredSQL = `select fingerprint, count(*), coalesce(sum(octet_length(event)), 0)::bigint, count(*) filter (where held),
    extract(epoch from now() - min(first_failed_at))::double precision, coalesce(bool_or(next_run_at is not null), false), min(position), max(position)
from tandem.deferred_event where function = $1 and cluster = $2 group by fingerprint order by count(*) desc, fingerprint`

	elsewhereDeferredSQL = `select distinct fingerprint, version from tandem.deferred_event where function = $1 and cluster <> $2 limit 1000`

	loadColumns = ` key, source, id, position, fingerprint, arrived_at, event from tandem.deferred_event where function = $1 and cluster = $2 `

	dueDeferredSQL = `select` + loadColumns + `and next_run_at <= now() order by next_run_at, position limit $3`

	afterDeferredSQL = `select` + loadColumns + `and fingerprint = $3 and position > $4 and not held and (next_run_at is null or next_run_at > now()) order by position limit $5`

	// For each fingerprint, the first event from a position on, or the first of
	// all.
	scheduleDeferredSQL = `update tandem.deferred_event e set next_run_at = now() + $5::double precision * interval '1 second' from (
    select f.fingerprint, coalesce(
        (select d.position from tandem.deferred_event d where d.function = $1 and d.cluster = $2 and d.fingerprint = f.fingerprint
            and not d.held and d.position >= f.start order by d.position limit 1),
        (select d.position from tandem.deferred_event d where d.function = $1 and d.cluster = $2 and d.fingerprint = f.fingerprint
            and not d.held order by d.position limit 1)) as position
    from unnest($3::text[], $4::bigint[]) as f(fingerprint, start)
) as p where e.function = $1 and e.cluster = $2 and e.fingerprint = p.fingerprint and e.position = p.position`

	postponeDeferredSQL = `update tandem.deferred_event set attempts = attempts + 1, last_failed_at = now(), next_run_at = null,
    fingerprint = $4, version = $5, reason = $6, held = $7
where key = $1 and cluster = $2 and function = $3`

	// Rows of all clusters: once one cluster has committed the event, nothing is left to do
	// for the others.
	deleteCommittedDeferredSQL = `delete from tandem.deferred_event d where d.ctid = any(array(
    select e.ctid from tandem.deferred_event e where e.key = any($1::uuid[])
    and exists (select from tandem.ledger l where l.key = e.key) for update skip locked))`

	// An event that is not in the ledger, for example after a failover that lost the commit,
	// runs again in its turn.
	unscheduleDeferredSQL = `update tandem.deferred_event set next_run_at = null where ctid = any(array(
    select e.ctid from tandem.deferred_event e where e.cluster = $1 and e.key = any($2::uuid[]) and e.next_run_at <= now() for update skip locked))`

	deleteOwnDeferredSQL = `delete from tandem.deferred_event where cluster = $1 and key = any($2::uuid[])`

	// Changes of the catalogs on which statements of functions depend. The statistics count
	// every change, and reading them is cheap.
	catalogChangesSQL = `select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint from pg_catalog.pg_stat_sys_tables
where schemaname = 'pg_catalog' and relname in ('pg_class', 'pg_attribute', 'pg_attrdef', 'pg_constraint', 'pg_index', 'pg_inherits',
    'pg_type', 'pg_enum', 'pg_proc', 'pg_namespace', 'pg_policy', 'pg_trigger', 'pg_auth_members', 'pg_authid')`
)

// maxReason bounds the stored reason, in bytes.
const maxReason = 1024

// Event is an event to be deferred.
type Event struct {
	// Key is the event's key in the ledger.
	Key ledger.Key

	Source, ID, Type, Subject string

	// Stream, Epoch and Sequence are the position at which the event was read. Arrived
	// is the time at which the stream stored it.
	Stream, Epoch string
	Sequence      uint64
	Arrived       time.Time

	// Version is the version of the function that could not commit the event, Fingerprint
	// identifies the missing object, and Reason is the text of the answer.
	Version, Fingerprint, Reason string

	// Held is true if the event runs only when a person requests it.
	Held bool

	// Attempts is how often the event failed, Failing is the time since the first
	// failure.
	Attempts int
	Failing  time.Duration

	// Proven is true if, since the first failure, the same version has committed another
	// event in this cluster. This proves that the cluster works.
	Proven bool

	// Event is the CloudEvent in JSON.
	Event []byte
}

// Result is the outcome for an event that was to be deferred.
type Result uint8

const (
	// Unproven means that the event was not stored: it is the only indication that
	// something is missing, and the cluster itself may be at fault.
	Unproven Result = iota
	// Stored means that the event is stored, now or earlier.
	Stored
	// Committed means that the event is in the ledger, and was not stored.
	Committed
	// BelowHorizon means that the event precedes the retention horizon: all clusters have
	// processed it, and it was not stored.
	BelowHorizon
)

// Store stores the deferred events of one cluster. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	cluster string
	lease   lease.Lease
}

// NewStore returns the deferred events of one cluster in the database behind pool, which must be
// the primary.
func NewStore(pool *pgxpool.Pool, cluster string) *Store {
	return &Store{pool: pool, cluster: cluster}
}

// With returns a Store for a replica with a lease: Defer fails with [lease.ErrLost] after
// another replica has acquired the lease.
func (s *Store) With(held lease.Lease) *Store {
	with := *s
	with.lease = held
	return &with
}

// Defer stores events in order and returns the result for each. The first event of a
// fingerprint runs after the duration until. Either all events are stored, or none and
// Defer returns an error.
func (s *Store) Defer(ctx context.Context, function string, events []Event, until time.Duration) ([]Result, error) {
	n := len(events)
	text := func(of func(*Event) string) []string {
		list := make([]string, n)
		for i := range events {
			list[i] = of(&events[i])
		}
		return list
	}
	keys, arrived, held, attempts := make([][16]byte, n), make([]time.Time, n), make([]bool, n), make([]int32, n)
	failing, data, proven := make([]float64, n), make([][]byte, n), make([]bool, n)
	for i, e := range events {
		keys[i], arrived[i], held[i], attempts[i] = e.Key, e.Arrived, e.Held, int32(min(max(e.Attempts, 0), 1<<30))
		failing[i], data[i], proven[i] = e.Failing.Seconds(), e.Event, e.Proven
	}
	rows, err := s.pool.Query(ctx, storeDeferredSQL, function, s.cluster, keys,
		text(func(e *Event) string { return e.Source }), text(func(e *Event) string { return e.ID }),
		text(func(e *Event) string { return e.Type }), text(func(e *Event) string { return e.Subject }),
		text(func(e *Event) string { return e.Stream }), text(func(e *Event) string { return e.Epoch }),
		text(func(e *Event) string { return strconv.FormatUint(e.Sequence, 10) }), arrived,
		text(func(e *Event) string { return e.Version }), text(func(e *Event) string { return storable(e.Fingerprint) }),
		text(func(e *Event) string { return storable(e.Reason) }), held, attempts, failing, data, proven,
		until.Seconds(), s.lease.Fence())
	if err != nil {
		return nil, fmt.Errorf("defer events of function %s: %w", function, err)
	}
	results := make([]Result, 0, n)
	var committed, below, shown, allowed bool
	if _, err := pgx.ForEachRow(rows, []any{&committed, &below, &shown, &allowed}, func() error {
		switch {
		case committed:
			results = append(results, Committed)
		case below:
			results = append(results, BelowHorizon)
		case !allowed:
			return lease.ErrLost
		case shown:
			results = append(results, Stored)
		default:
			results = append(results, Unproven)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("defer events of function %s: %w", function, err)
	}
	if len(results) != n {
		return nil, fmt.Errorf("defer events of function %s: %d results for %d events", function, len(results), n)
	}
	return results, nil
}

// Count is the number of events that are deferred for one fingerprint.
type Count struct {
	Fingerprint string
	Events      int64
	Bytes       int64
	Held        int64         // number of events that run only when a person requests it
	Oldest      time.Duration // since the first failure of the oldest
	Scheduled   bool          // whether one of them is scheduled to run
	First, Last int64         // positions
}

// Counts returns the deferred events by fingerprint, the largest number first.
func (s *Store) Counts(ctx context.Context, function string) ([]Count, error) {
	rows, err := s.pool.Query(ctx, countDeferredSQL, function, s.cluster)
	if err != nil {
		return nil, fmt.Errorf("count deferred events of function %s: %w", function, err)
	}
	counts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Count, err error) {
		var oldest float64
		err = row.Scan(&c.Fingerprint, &c.Events, &c.Bytes, &c.Held, &oldest, &c.Scheduled, &c.First, &c.Last)
		c.Oldest = time.Duration(oldest * float64(time.Second))
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("count deferred events of function %s: %w", function, err)
	}
	return counts, nil
}

// Lack is a reason for deferring events: a missing object, and the version that
// needs it.
type Lack struct{ Fingerprint, Version string }

// Elsewhere returns the reasons for which other clusters have deferred events.
func (s *Store) Elsewhere(ctx context.Context, function string) ([]Lack, error) {
	rows, err := s.pool.Query(ctx, elsewhereDeferredSQL, function, s.cluster)
	if err != nil {
		return nil, fmt.Errorf("look up deferred events of function %s in other clusters: %w", function, err)
	}
	lacks, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Lack])
	if err != nil {
		return nil, fmt.Errorf("look up deferred events of function %s in other clusters: %w", function, err)
	}
	return lacks, nil
}

// Row is a deferred event that is due.
type Row struct {
	Key         ledger.Key
	Source, ID  string
	Position    int64 // orders the events; it is set by the database
	Fingerprint string
	Arrived     time.Time
	Event       []byte
}

// Due returns the first limit events whose next run is due.
func (s *Store) Due(ctx context.Context, function string, limit int) ([]Row, error) {
	return s.load(ctx, function, dueDeferredSQL, limit)
}

// After returns the first limit events of a fingerprint after a position, without those that
// are held and those that are due.
func (s *Store) After(ctx context.Context, function, fingerprint string, position int64, limit int) ([]Row, error) {
	return s.load(ctx, function, afterDeferredSQL, fingerprint, position, limit)
}

func (s *Store) load(ctx context.Context, function, sql string, args ...any) ([]Row, error) {
	rows, err := s.pool.Query(ctx, sql, append([]any{function, s.cluster}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("load deferred events of function %s: %w", function, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Row, err error) {
		err = row.Scan((*[16]byte)(&r.Key), &r.Source, &r.ID, &r.Position, &r.Fingerprint, &r.Arrived, &r.Event)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("load deferred events of function %s: %w", function, err)
	}
	return list, nil
}

// Schedule schedules one event of each fingerprint to run after a delay: the first one from
// a position on.
func (s *Store) Schedule(ctx context.Context, function string, fingerprints []string, positions []int64, wait time.Duration) error {
	if _, err := s.pool.Exec(ctx, scheduleDeferredSQL, function, s.cluster, fingerprints, positions, wait.Seconds()); err != nil {
		return fmt.Errorf("schedule deferred events of function %s: %w", function, err)
	}
	return nil
}

// Postpone records that an event has failed again, possibly for another reason. It is not
// scheduled to run then.
func (s *Store) Postpone(ctx context.Context, function string, e Event) error {
	if _, err := s.pool.Exec(ctx, postponeDeferredSQL, [16]byte(e.Key), s.cluster, function, storable(e.Fingerprint), e.Version, storable(e.Reason), e.Held); err != nil {
		return fmt.Errorf("postpone deferred event %s of function %s: %w", e.ID, function, err)
	}
	return nil
}

// DeleteCommitted deletes the deferred events that are in the ledger, of all clusters, except
// rows that another transaction has locked. Events of this cluster that remain are not
// scheduled to run.
func (s *Store) DeleteCommitted(ctx context.Context, keys []ledger.Key) error {
	_, err := s.pool.Exec(ctx, deleteCommittedDeferredSQL, plain(keys))
	if err == nil {
		_, err = s.pool.Exec(ctx, unscheduleDeferredSQL, s.cluster, plain(keys))
	}
	if err != nil {
		return fmt.Errorf("delete deferred events that are committed: %w", err)
	}
	return nil
}

// Delete deletes deferred events of this cluster that became dead letters.
func (s *Store) Delete(ctx context.Context, keys []ledger.Key) error {
	if _, err := s.pool.Exec(ctx, deleteOwnDeferredSQL, s.cluster, plain(keys)); err != nil {
		return fmt.Errorf("delete deferred events that are dead letters: %w", err)
	}
	return nil
}

// Catalog returns a number that changes with the catalogs: after a migration, a new
// partition, or a grant.
func (s *Store) Catalog(ctx context.Context) (version int64, err error) {
	if err := s.pool.QueryRow(ctx, catalogChangesSQL).Scan(&version); err != nil {
		return 0, fmt.Errorf("look up changes of the catalog: %w", err)
	}
	return version, nil
}

// plain converts keys to a type that the driver can encode.
func plain(keys []ledger.Key) [][16]byte {
	list := make([][16]byte, len(keys))
	for i, k := range keys {
		list[i] = k
	}
	return list
}

// storable converts a text to one that PostgreSQL can store, of at most maxReason
// bytes.
func storable(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
