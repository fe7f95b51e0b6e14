package source_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func ExampleNew() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	conn, err := jetstream.Connect(ctx, "nats://127.0.0.1:4222", jetstream.Config{Name: "example", Logger: logger})
	if err != nil {
		panic(err)
	}
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		panic(err)
	}
	delivery, err := delivery.New("http://flights.default", "http://flights.default/dead-letters", delivery.Config{
		Function: "flights",
		Logger:   logger,
	})
	if err != nil {
		panic(err)
	}
	var saver source.Checkpoints // cmd/source creates it with a ledger.Checkpoints
	source, err := source.New(eventing.StreamList{stream}, delivery, saver, source.Config{
		Function: "flights",
		Logger:   logger,
	})
	if err != nil {
		panic(err)
	}
	source.Run(ctx) // until ctx ends
}
