package relay_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the outbox is in the database

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/relay"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// A relay publishes the outputs of writers whose process ended before it could. It may
// run in every cluster.
func ExampleRun() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, "postgres://tandem@localhost:5432/orders")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := jetstream.Connect(ctx, "nats://localhost:4222", jetstream.Config{})
	if err != nil {
		log.Fatal(err)
	}
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "OUTPUTS", LeastWindow: contract.RelayTakeover})
	if err != nil {
		log.Fatal(err)
	}
	relay.Run(ctx, sinkwriter.NewOutbox(pool), publisher, relay.Config{}) // until ctx ends
}
