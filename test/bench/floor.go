package main

import (
	"context"
	"fmt"
	"time"
)

const floorSQL = `insert into orders (order_id, customer, amount, placed_at, note)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[])
on conflict (order_id) do update set customer = excluded.customer, amount = excluded.amount,
	placed_at = excluded.placed_at, note = excluded.note`

// runFloor writes the rows of all events and nothing else: the minimum cost of
// PostgreSQL and the path to it.
func runFloor(ctx context.Context, t *trial) error {
	pool, err := t.pool(ctx, 1)
	if err != nil {
		return err
	}
	var w workload
	if err := t.measure(ctx, func(ctx context.Context) error {
		var ids, customers, notes []string
		var amounts []int64
		var times []time.Time
		for from := 0; from < t.events; from += t.options.batch {
			ids, customers, notes, amounts, times = ids[:0], customers[:0], notes[:0], amounts[:0], times[:0]
			for n := from; n < min(from+t.options.batch, t.events); n++ {
				o := w.order(n)
				ids, customers, notes = append(ids, o.orderID), append(customers, o.customer), append(notes, note)
				amounts, times = append(amounts, o.amount), append(times, o.placedAt)
			}
			if _, err := pool.Exec(ctx, floorSQL, ids, customers, amounts, times, notes); err != nil {
				return fmt.Errorf("upsert a batch: %w", err)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return t.expectOrders(ctx, w)
}
