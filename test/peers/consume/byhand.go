package consume

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
)

// The poller reads again immediately after it found rows, else after a pause that
// keeps its cost low.
const (
	pollInterval = 20 * time.Millisecond
	pollBatch    = 200
)

// byHand is a consumer without a library: one transaction per event, and a
// poller that publishes the outputs in the outbox.
func byHand(ctx context.Context, c Config, handle func(context.Context, *pgxpool.Pool, departure) error) error {
	pool, err := openPool(ctx, c, c.Concurrency+1)
	if err != nil {
		return err
	}
	nc, js, err := openNATS(c)
	if err != nil {
		return err
	}
	defer nc.Close()
	return work(ctx, js, c,
		func(ctx context.Context, d departure) error { return handle(ctx, pool, d) },
		func(ctx context.Context) error { return poll(ctx, pool, js) },
	)
}

// stepwise needs a round trip for every statement.
func stepwise(ctx context.Context, pool *pgxpool.Pool, d departure) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "insert into processed (source, id) values ($1, $2) on conflict do nothing", d.Source, d.ID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `insert into flights (source, flight_id, departed_at, origin, destination, distance, delay)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (flight_id, source) do update set departed_at = excluded.departed_at, origin = excluded.origin,
	destination = excluded.destination, distance = excluded.distance, delay = excluded.delay`, d.args()...); err != nil {
			return err
		}
		if d.late() {
			out, err := d.output()
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, "insert into outbound (event_id, subject, data) values ($1, $2, $3)", out.ID, out.Subject, out.Data); err != nil {
				return err
			}
		}
		// The counter last: others wait for it until we have committed.
		_, err = tx.Exec(ctx, `insert into airports (airport, flights, delay_minutes) values ($1, 1, $2)
on conflict (airport) do update set flights = airports.flights + 1, delay_minutes = airports.delay_minutes + excluded.delay_minutes`, d.Origin, d.Delay)
		return err
	})
}

// atOnce is the same transaction as one statement, so one round trip.
func atOnce(ctx context.Context, pool *pgxpool.Pool, d departure) error {
	var out output
	data := []byte("null")
	if d.late() {
		var err error
		if out, err = d.output(); err != nil {
			return err
		}
		data = out.Data
	}
	_, err := pool.Exec(ctx, claimedAllSQL, append(d.args(), out.ID, data)...)
	return err
}

// poll publishes the outputs in the outbox, and deletes them once the stream has
// stored them.
func poll(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream) error {
	for {
		n, err := publishBatch(ctx, pool, js)
		if err != nil && ctx.Err() == nil {
			logger().LogAttrs(ctx, slog.LevelWarn, "could not publish outputs; retrying", slog.Any("err", err))
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func publishBatch(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream) (n int, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "select id, event_id, subject, data from outbound order by id limit $1 for update skip locked", pollBatch)
		if err != nil {
			return err
		}
		var ids []int64
		var waiting []jetstream.PubAckFuture
		var id int64
		var out output
		_, err = pgx.ForEachRow(rows, []any{&id, &out.ID, &out.Subject, &out.Data}, func() error {
			ids = append(ids, id)
			sent := out
			sent.Data = append([]byte(nil), out.Data...)
			future, err := js.PublishMsgAsync(sent.message())
			waiting = append(waiting, future)
			return err
		})
		if err != nil {
			return fmt.Errorf("publish outputs: %w", err)
		}
		for _, future := range waiting {
			select {
			case <-future.Ok():
			case err := <-future.Err():
				return fmt.Errorf("publish outputs: %w", err)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if n = len(ids); n == 0 {
			return nil
		}
		_, err = tx.Exec(ctx, "delete from outbound where id = any($1)", ids)
		return err
	})
	return n, err
}
