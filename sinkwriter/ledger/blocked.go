package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	// An event that contains an escape that PostgreSQL cannot convert to text, and was
	// stored unchanged, is returned whole.
	parkedSQL = `select case when odd then '' else d.event ->> 'subject' end, d.source, d.id, case when odd then d.event::text else '' end
from tandem.dead_letter d cross join lateral (select d.event::text ~* '\\u(0000|d[89a-f])') as o (odd)
where d.function = $1 and d.cluster = $2 and case when odd then true else d.event ->> 'subject' is not null end
and not exists (select from tandem.ledger l where l.key = tandem.key(d.function, d.source, d.id))
union all
select e.subject, e.source, e.id, '' from tandem.deferred_event e where e.function = $1 and e.cluster = $2 and e.subject <> ''
and not exists (select from tandem.ledger l where l.key = e.key)`

	stillParkedSQL = `select u.source, u.id from unnest($3::text[], $4::text[]) as u(source, id)
join tandem.dead_letter d on d.function = $1 and d.source = u.source and d.id = u.id and d.cluster = $2
where not exists (select from tandem.ledger l where l.key = tandem.key(d.function, d.source, d.id))
union
select u.source, u.id from unnest($3::text[], $4::text[]) as u(source, id)
join tandem.deferred_event e on hashtextextended(e.id, 0) = hashtextextended(u.id, 0) and e.id = u.id and e.source = u.source and e.function = $1 and e.cluster = $2
where not exists (select from tandem.ledger l where l.key = e.key)`
)

// Blocked looks up which dead letters and deferred events of one cluster block their subjects:
// the event is committed in no cluster, and was not dropped. It is safe for concurrent use.
type Blocked struct {
	pool    *pgxpool.Pool
	cluster string
	lease   lease.Lease
}

// NewBlocked returns the blocked events of one cluster in the database behind pool, which
// must be the primary.
func NewBlocked(pool *pgxpool.Pool, cluster string) *Blocked {
	return &Blocked{pool: pool, cluster: cluster}
}

// With returns a Blocked for a replica with a lease: Store fails with [lease.ErrLost]
// after another replica has acquired the lease.
func (p *Blocked) With(held lease.Lease) *Blocked {
	with := *p
	with.lease = held
	return &with
}

// BlockedEvent is an event that blocks its subject: one with a dead letter until a person
// replays or drops it, or a deferred one until it is committed.
type BlockedEvent struct {
	Subject, Source, ID string
}

// List returns all blocking events of a function that have a subject.
func (p *Blocked) List(ctx context.Context, function string) ([]BlockedEvent, error) {
	rows, err := p.pool.Query(ctx, parkedSQL, function, p.cluster)
	if err != nil {
		return nil, fmt.Errorf("list blocking events of function %s: %w", function, err)
	}
	var list []BlockedEvent
	var e BlockedEvent
	var whole string
	_, err = pgx.ForEachRow(rows, []any{&e.Subject, &e.Source, &e.ID, &whole}, func() error {
		if whole != "" {
			var parsed struct{ Subject string }
			if err := json.Unmarshal([]byte(whole), &parsed); err != nil {
				return fmt.Errorf("read the subject of event %s of %s: %w", e.ID, e.Source, err)
			}
			e.Subject = parsed.Subject
		}
		if e.Subject != "" {
			list = append(list, e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list blocking events of function %s: %w", function, err)
	}
	return list, nil
}

// Still returns those of the events that still block. Their subjects are ignored.
// Pass at most a few thousand events.
func (p *Blocked) Still(ctx context.Context, function string, events []BlockedEvent) (map[BlockedEvent]bool, error) {
	sources, ids := make([]string, len(events)), make([]string, len(events))
	for i, e := range events {
		sources[i], ids[i] = e.Source, e.ID
	}
	rows, err := p.pool.Query(ctx, stillParkedSQL, function, p.cluster, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("look up which events of function %s still block their subjects: %w", function, err)
	}
	still := make(map[BlockedEvent]bool, len(events))
	var e BlockedEvent
	if _, err := pgx.ForEachRow(rows, []any{&e.Source, &e.ID}, func() error {
		still[e] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up which events of function %s still block their subjects: %w", function, err)
	}
	return still, nil
}
