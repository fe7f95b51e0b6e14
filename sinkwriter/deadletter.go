package sinkwriter

import (
	"context"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const deadLetterSQL = `insert into tandem.dead_letter as d (function, source, id, cluster, type, code, reason, event)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (function, source, id, cluster) do update
set code = excluded.code, reason = excluded.reason, event = excluded.event, times = d.times + 1, last_at = now()`

// maxReason bounds the reason kept with a dead letter, in bytes.
const maxReason = 4096

// DeadLetters keeps the events that a cluster could not get through a function.
// They bypass the ledger: one row an event, function and cluster. It may be
// shared.
type DeadLetters struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewDeadLetters keeps the dead letters of one cluster in the database behind
// pool.
func NewDeadLetters(pool *pgxpool.Pool, cluster string) *DeadLetters {
	return &DeadLetters{pool: pool, cluster: cluster}
}

// Save keeps an event with the status that the function answered (0 if unknown)
// and the reason, of which the first 4,096 bytes count. The same event again
// replaces code and reason and is counted.
func (d *DeadLetters) Save(ctx context.Context, function string, e event.Event, code int, reason string) error {
	text, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", function, err)
	}
	if _, err := d.pool.Exec(ctx, deadLetterSQL, function, e.Source(), e.ID(), d.cluster, e.Type(), code, storable(reason), text); err != nil {
		return fmt.Errorf("save dead letter of function %s: %w", function, err)
	}
	return nil
}
