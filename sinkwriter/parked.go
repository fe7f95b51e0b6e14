package sinkwriter

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	parkedSQL = `select d.event ->> 'subject', d.source, d.id from tandem.dead_letter d
where d.function = $1 and d.cluster = $2 and d.event ->> 'subject' is not null
and not exists (select from tandem.ledger l where l.key = tandem.key(d.function, d.source, d.id))`

	stillParkedSQL = `select u.source, u.id from unnest($3::text[], $4::text[]) as u(source, id)
join tandem.dead_letter d on d.function = $1 and d.source = u.source and d.id = u.id and d.cluster = $2
where not exists (select from tandem.ledger l where l.key = tandem.key(d.function, d.source, d.id))`
)

// Parked says which dead letters of one cluster wait for a verdict: the event is
// handled nowhere, and nobody has dropped the letter. It may be shared.
type Parked struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewParked reads the dead letters of one cluster in the database behind pool,
// which must be the primary.
func NewParked(pool *pgxpool.Pool, cluster string) *Parked {
	return &Parked{pool: pool, cluster: cluster}
}

// ParkedEvent is an event that waits for a verdict.
type ParkedEvent struct {
	Subject, Source, ID string
}

// List gives all of a function that have a subject.
func (p *Parked) List(ctx context.Context, function string) ([]ParkedEvent, error) {
	rows, err := p.pool.Query(ctx, parkedSQL, function, p.cluster)
	if err != nil {
		return nil, fmt.Errorf("list events of function %s that wait for a verdict: %w", function, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ParkedEvent])
	if err != nil {
		return nil, fmt.Errorf("list events of function %s that wait for a verdict: %w", function, err)
	}
	return list, nil
}

// Still gives those of the events that wait for a verdict still. Their subjects do
// not count. Ask for some thousand at a time.
func (p *Parked) Still(ctx context.Context, function string, events []ParkedEvent) (map[ParkedEvent]bool, error) {
	sources, ids := make([]string, len(events)), make([]string, len(events))
	for i, e := range events {
		sources[i], ids[i] = e.Source, e.ID
	}
	rows, err := p.pool.Query(ctx, stillParkedSQL, function, p.cluster, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("ask which events of function %s wait for a verdict: %w", function, err)
	}
	still := make(map[ParkedEvent]bool, len(events))
	var e ParkedEvent
	if _, err := pgx.ForEachRow(rows, []any{&e.Source, &e.ID}, func() error {
		still[e] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ask which events of function %s wait for a verdict: %w", function, err)
	}
	return still, nil
}
