package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// handler processes an event with code as users would write it: record that it
// is processed, unless it was; write its row; put its output into an outbox.
// It reports whether it did. It counts unique violations, which mean that
// another worker was faster.
type handler func(ctx context.Context, pool *pgxpool.Pool, o order, violations *atomic.Int64) (won bool, err error)

const (
	processedSQL = `insert into processed (source, id) values ($1, $2) on conflict do nothing`

	upsertSQL = `insert into orders (order_id, customer, amount, placed_at, note) values ($1, $2, $3, $4, $5)
on conflict (order_id) do update set customer = excluded.customer, amount = excluded.amount,
	placed_at = excluded.placed_at, note = excluded.note`

	outboundSQL = `insert into outbound (source, event_id, type, data) values ($1, $2, $3, $4)`

	// Everything in one statement: the rest is executed only if the claim
	// returned a row.
	pipelinedSQL = `with claim as (
	insert into processed (source, id) values ($1, $2) on conflict do nothing returning source, id
), upsert as (
	insert into orders (order_id, customer, amount, placed_at, note)
	select $3::text, $4::text, $5::bigint, $6::timestamptz, $7::text from claim
	on conflict (order_id) do update set customer = excluded.customer, amount = excluded.amount,
		placed_at = excluded.placed_at, note = excluded.note
)
insert into outbound (source, event_id, type, data) select source, id, $8::text, $9::json from claim`

	mergeProcessedSQL = `merge into processed p using (values ($1::text, $2::text)) as e (source, id)
on p.source = e.source and p.id = e.id
when not matched then insert (source, id) values (e.source, e.id)`

	mergeOrderSQL = `merge into orders o
using (values ($1::text, $2::text, $3::bigint, $4::timestamptz, $5::text)) as n (order_id, customer, amount, placed_at, note)
on o.order_id = n.order_id
when matched then update set customer = n.customer, amount = n.amount, placed_at = n.placed_at, note = n.note
when not matched then insert (order_id, customer, amount, placed_at, note)
	values (n.order_id, n.customer, n.amount, n.placed_at, n.note)`
)

// handleStepwise needs a round trip for every statement.
func handleStepwise(ctx context.Context, pool *pgxpool.Pool, o order, _ *atomic.Int64) (won bool, err error) {
	return transact(ctx, pool, o, processedSQL, upsertSQL)
}

func transact(ctx context.Context, pool *pgxpool.Pool, o order, claimSQL, writeSQL string) (won bool, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, claimSQL, eventSource, o.eventID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		won = true
		if _, err := tx.Exec(ctx, writeSQL, o.orderID, o.customer, o.amount, o.placedAt, note); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, outboundSQL, eventSource, o.eventID, outputType, o.output())
		return err
	})
	return won && err == nil, err
}

// handlePipelined needs one round trip.
func handlePipelined(ctx context.Context, pool *pgxpool.Pool, o order, _ *atomic.Int64) (won bool, err error) {
	tag, err := pool.Exec(ctx, pipelinedSQL, eventSource, o.eventID,
		o.orderID, o.customer, o.amount, o.placedAt, note, outputType, o.output())
	return tag.RowsAffected() == 1, err
}

// handleMerge is handleStepwise with MERGE. MERGE does not see an uncommitted
// row of another transaction, and fails once that row is committed.
func handleMerge(ctx context.Context, pool *pgxpool.Pool, o order, violations *atomic.Int64) (won bool, err error) {
	won, err = transact(ctx, pool, o, mergeProcessedSQL, mergeOrderSQL)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "23505" && answer.ConstraintName == "processed_pkey" {
		violations.Add(1)
		return false, nil
	}
	return won, err
}

// byHand measures a handler in two clusters, each with as many workers as it has
// connections.
func byHand(handle handler) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		var w workload
		var pools [2]*pgxpool.Pool
		for i := range pools {
			var err error
			if pools[i], err = t.pool(ctx, t.connections); err != nil {
				return err
			}
		}
		var won, violations atomic.Int64
		if err := t.measure(ctx, func(ctx context.Context) error {
			group, ctx := errgroup.WithContext(ctx)
			for _, pool := range pools {
				group.Go(func() error {
					return each(ctx, t.events, 1, t.connections, func(ctx context.Context, n, _ int) error {
						ok, err := handle(ctx, pool, w.order(n), &violations)
						if ok {
							won.Add(1)
						}
						return err
					})
				})
			}
			return group.Wait()
		}); err != nil {
			return fmt.Errorf("handle events: %w", err)
		}
		t.sample.uniqueViolations = violations.Load()
		events := int64(t.events)
		return errors.Join(
			equal("the number of events that were processed now", won.Load(), events),
			t.expectOrders(ctx, w),
			t.expect(ctx, "the number of processed events", "select count(*) from processed", events),
			t.expect(ctx, "the number of outputs", "select count(*) from outbound", events),
		)
	}
}
