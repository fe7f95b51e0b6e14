package deadletter_test

import (
	"context"
	"log"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

func ExampleNewStore() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	e := event.New()
	e.SetID("order-17")
	e.SetSource("/shop")
	e.SetType("com.example.order.placed")
	letter := deadletter.Letter{Function: "orders", Event: e, Code: 422, Reason: "cents: want a number", Attempts: 1}
	if err := deadletter.NewStore(pool, "east").Save(ctx, letter); err != nil {
		log.Fatal(err)
	}
}

// Every active cluster refuses a poison event; a single cluster that refuses an event
// may itself be sick.
func ExampleNewVerdicts() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://owner@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	filter := deadletter.Filter{Function: "orders", Verdict: deadletter.VerdictPoison}
	events, err := deadletter.NewVerdicts(pool).List(ctx, filter, nil, 100)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range events {
		log.Print(e.ID, " was refused by ", e.Clusters, ": ", e.Reason)
	}
}
