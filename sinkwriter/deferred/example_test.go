package deferred_test

import (
	"context"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func ExampleNewStore() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	e := deferred.Event{
		Key: ledger.NewKey("orders", "/shop", "order-17"), Source: "/shop", ID: "order-17", Type: "com.example.order.placed",
		Stream: "EVENTS", Epoch: "e1", Sequence: 4711, Arrived: time.Now(),
		Version: "1.4.0", Fingerprint: "23514 orders", Reason: "no partition of relation \"orders\" found for row", Attempts: 2, Proven: true,
		Event: []byte(`{"specversion":"1.0","id":"order-17","source":"/shop","type":"com.example.order.placed"}`),
	}
	results, err := deferred.NewStore(pool, "east").Defer(ctx, "orders", []deferred.Event{e}, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	if results[0] == deferred.Stored {
		log.Print("the event may be acknowledged to its stream")
	}
}

func ExampleNewEvents() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://owner@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	events := deferred.NewEvents(pool)
	list, err := events.List(ctx, deferred.Filter{Fingerprint: "23514"}, nil, 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range list {
		log.Print(e.ID, " waits since ", e.FirstFailedAt, " for ", e.Fingerprint)
	}
}
