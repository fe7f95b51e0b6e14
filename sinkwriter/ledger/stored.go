package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	// The positions have the order of the arguments. The last row reports whether the
	// lease was lost, so that nothing was stored.
	storeBlockedSQL = `with fence as (
    select 1 from tandem.source_lease where function = $1 and cluster = $2 and array[site, replica, epoch::text] = $10::text[] for share
), allowed as materialized (
    select $10::text[] is null or exists (select from fence) as allowed
), stored as (
insert into tandem.blocked_event (function, cluster, source, id, subject, stream, sequence, arrived_at, event)
select $1, $2, u.source, u.id, u.subject, u.stream, u.sequence::numeric, u.arrived_at, u.event
from unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::bytea[])
with ordinality as u(source, id, subject, stream, sequence, arrived_at, event, n)
where (select allowed from allowed)
order by u.n on conflict do nothing returning source, id
) select source, id, true from stored union all select '', '', allowed from allowed where not allowed`

	countBlockedSQL = `select subject, count(*), coalesce(sum(octet_length(event)), 0)::bigint from tandem.blocked_event
where function = $1 and cluster = $2 group by subject`

	// The index is on a hash of the subject, because a subject may be longer than
	// an index entry.
	loadBlockedSQL = `select e.position, e.source, e.id, e.subject, e.stream, e.sequence::text, e.arrived_at, e.event
from unnest($3::text[]) as s(subject), lateral (
    select * from tandem.blocked_event b where b.function = $1 and b.cluster = $2
    and hashtextextended(b.subject, 0) = hashtextextended(s.subject, 0) and b.subject = s.subject order by b.position limit $4
) as e order by e.position`

	deleteBlockedSQL = `delete from tandem.blocked_event where function = $1 and cluster = $2 and position = any($3)`
)

// StoredEvent is an event that waits behind a dead letter of its subject.
type StoredEvent struct {
	// Position orders the events of a subject; it is set by the database.
	Position int64

	Subject, Source, ID string

	// Stream and Sequence are the position at which the event was read. Arrived is the
	// time at which the stream stored it.
	Stream   string
	Sequence uint64
	Arrived  time.Time

	// Event is the CloudEvent in JSON.
	Event []byte
}

// StoredCount is the number of events stored for a subject.
type StoredCount struct {
	Subject string
	Events  int64
	Bytes   int64
}

// Store stores events that wait behind a dead letter, in order, and reports for each
// whether it was stored now; false means that it was stored before. Either all events are
// stored, or none and Store returns an error.
func (p *Blocked) Store(ctx context.Context, function string, events []StoredEvent) ([]bool, error) {
	n := len(events)
	sources, ids, subjects := make([]string, n), make([]string, n), make([]string, n)
	streams, sequences, arrived, data := make([]string, n), make([]string, n), make([]time.Time, n), make([][]byte, n)
	for i, e := range events {
		sources[i], ids[i], subjects[i], streams[i] = e.Source, e.ID, e.Subject, e.Stream
		sequences[i], arrived[i], data[i] = strconv.FormatUint(e.Sequence, 10), e.Arrived, e.Event
	}
	rows, err := p.pool.Query(ctx, storeBlockedSQL, function, p.cluster, sources, ids, subjects, streams, sequences, arrived, data, p.lease.Fence())
	if err != nil {
		return nil, fmt.Errorf("store blocked events of function %s: %w", function, err)
	}
	type key struct{ source, id string }
	inserted := map[key]bool{}
	var k key
	var allowed bool
	if _, err := pgx.ForEachRow(rows, []any{&k.source, &k.id, &allowed}, func() error {
		if !allowed {
			return lease.ErrLost
		}
		inserted[k] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("store blocked events of function %s: %w", function, err)
	}
	stored := make([]bool, n)
	for i, e := range events {
		k := key{e.Source, e.ID}
		stored[i] = inserted[k]
		delete(inserted, k) // an event that occurs twice is stored once
	}
	return stored, nil
}

// Stored returns the number of stored events by subject.
func (p *Blocked) Stored(ctx context.Context, function string) ([]StoredCount, error) {
	rows, err := p.pool.Query(ctx, countBlockedSQL, function, p.cluster)
	if err != nil {
		return nil, fmt.Errorf("count blocked events of function %s: %w", function, err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[StoredCount])
	if err != nil {
		return nil, fmt.Errorf("count blocked events of function %s: %w", function, err)
	}
	return counts, nil
}

// Load returns the first limit stored events of each subject, by position.
func (p *Blocked) Load(ctx context.Context, function string, subjects []string, limit int) ([]StoredEvent, error) {
	rows, err := p.pool.Query(ctx, loadBlockedSQL, function, p.cluster, subjects, limit)
	if err != nil {
		return nil, fmt.Errorf("load blocked events of function %s: %w", function, err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e StoredEvent, err error) {
		var sequence string
		if err = row.Scan(&e.Position, &e.Source, &e.ID, &e.Subject, &e.Stream, &sequence, &e.Arrived, &e.Event); err == nil {
			e.Sequence, err = strconv.ParseUint(sequence, 10, 64)
		}
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("load blocked events of function %s: %w", function, err)
	}
	return events, nil
}

// Delete deletes stored events by their positions.
func (p *Blocked) Delete(ctx context.Context, function string, positions []int64) error {
	if _, err := p.pool.Exec(ctx, deleteBlockedSQL, function, p.cluster, positions); err != nil {
		return fmt.Errorf("delete blocked events of function %s: %w", function, err)
	}
	return nil
}
