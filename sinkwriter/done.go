package sinkwriter

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// doneSQL looks each key up by itself, whatever the planner believes.
const doneSQL = `select u.k from unnest($1::uuid[]) as u(k)
cross join lateral (select from tandem.ledger where key = u.k offset 0) as l`

// Ledger says what is done. It claims nothing. It may be shared.
type Ledger struct {
	pool *pgxpool.Pool
}

// NewLedger reads the ledger of the database behind pool, which must be the
// primary.
func NewLedger(pool *pgxpool.Pool) *Ledger { return &Ledger{pool: pool} }

// Done gives those of the keys that are in the ledger: their events are handled,
// for good. That one is not among them says nothing: it may be committed at this
// moment. Ask for some thousand at a time.
func (l *Ledger) Done(ctx context.Context, keys []Key) (map[Key]bool, error) {
	ask := make([][16]byte, len(keys))
	for i, k := range keys {
		ask[i] = k
	}
	rows, err := l.pool.Query(ctx, doneSQL, ask)
	if err != nil {
		return nil, fmt.Errorf("ask the ledger for %d keys: %w", len(keys), err)
	}
	done := make(map[Key]bool, len(keys))
	var key [16]byte
	if _, err := pgx.ForEachRow(rows, []any{&key}, func() error {
		done[key] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("ask the ledger for %d keys: %w", len(keys), err)
	}
	return done, nil
}
