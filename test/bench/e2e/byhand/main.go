// Command byhand is a consumer as users write it. It fetches events from the stream and
// processes each in a transaction: record that it is processed, unless it was, write
// its row and put its output into an outbox. A poller publishes the outputs in the
// outbox, waits until the stream has stored them, and deletes them. Any number of
// instances may run at once.
//
// It is written to be fast: prepared statements, fetches ahead of the workers, many
// outputs published at a time.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

const (
	processedSQL = `insert into processed (source, id) values ($1, $2) on conflict do nothing`

	upsertSQL = `insert into orders (order_id, customer, amount, placed_at, note) values ($1, $2, $3, $4, $5)
on conflict (order_id) do update set customer = excluded.customer, amount = excluded.amount,
	placed_at = excluded.placed_at, note = excluded.note`

	outboundSQL = `insert into outbound (source, event_id, type, data) values ($1, $2, $3, $4)`

	pollSQL = `delete from outbound where id in (select id from outbound order by id limit 1000 for update skip locked)
returning source, event_id, data`
)

const (
	fetchSize = 500
	pollPause = 5 * time.Millisecond
)

func main() {
	name := flag.String("name", "", "`name` of the durable consumer")
	workers := flag.Int("workers", 16, "transactions at a time, each on a connection")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *workers); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "byhand:", err)
		os.Exit(1) //nolint:gocritic // nothing to stop
	}
}

// natsTimeout bounds a request to NATS, and the connection. It is long because an error ends
// the program, and a busy machine must not cause one.
const natsTimeout = 30 * time.Second

func run(ctx context.Context, name string, workers int) error {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	config.MaxConns = int32(workers + 1)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	nc, err := nats.Connect(os.Getenv("NATS_URL"), nats.Timeout(natsTimeout))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(natsTimeout))
	if err != nil {
		return err
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, "EVENTS", jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxAckPending: 1 << 16,
	})
	if err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	messages := make(chan jetstream.Msg, fetchSize)
	group.Go(func() error { return fetch(ctx, consumer, messages) })
	for range workers {
		group.Go(func() error { return work(ctx, pool, messages) })
	}
	group.Go(func() error { return publish(ctx, pool, js) })
	return group.Wait()
}

func fetch(ctx context.Context, consumer jetstream.Consumer, messages chan<- jetstream.Msg) error {
	for ctx.Err() == nil {
		batch, err := consumer.Fetch(fetchSize, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			select {
			case messages <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return ctx.Err()
}

func work(ctx context.Context, pool *pgxpool.Pool, messages <-chan jetstream.Msg) error {
	for {
		select {
		case m := <-messages:
			if err := handle(ctx, pool, m.Headers().Get("ce-id"), m.Data()); err != nil {
				return err
			}
			if err := m.Ack(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func handle(ctx context.Context, pool *pgxpool.Pool, id string, data []byte) error {
	var o orders.Order
	if err := json.Unmarshal(data, &o); err != nil {
		return err
	}
	output, err := json.Marshal(o.Accept())
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, processedSQL, orders.Source, id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, upsertSQL, o.Order, o.Customer, o.Amount, o.PlacedAt, o.Note); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, outboundSQL, orders.Source, id, orders.Accepted, output)
		return err
	})
}

// publish publishes the outputs in the outbox, and pauses if there are none.
func publish(ctx context.Context, pool *pgxpool.Pool, js jetstream.JetStream) error {
	for {
		n := 0
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) (err error) {
			n, err = publishSome(ctx, tx, js)
			return err
		})
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		select {
		case <-time.After(pollPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func publishSome(ctx context.Context, tx pgx.Tx, js jetstream.JetStream) (int, error) {
	rows, err := tx.Query(ctx, pollSQL)
	if err != nil {
		return 0, err
	}
	var futures []jetstream.PubAckFuture
	var source, id string
	var data []byte
	if _, err := pgx.ForEachRow(rows, []any{&source, &id, &data}, func() error {
		future, err := js.PublishMsgAsync(&nats.Msg{
			Subject: "outputs." + orders.Accepted,
			Header: nats.Header{
				"ce-specversion": {"1.0"}, "ce-id": {id + "-0"}, "ce-source": {source}, "ce-type": {orders.Accepted},
				"content-type": {"application/json"},
			},
			Data: append([]byte(nil), data...),
		}, jetstream.WithMsgID(source+" "+id))
		futures = append(futures, future)
		return err
	}); err != nil {
		return 0, err
	}
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return 0, err
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err())
		}
	}
	return len(futures), nil
}
