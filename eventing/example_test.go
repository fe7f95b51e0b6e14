package eventing_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func ExampleNewSource() {
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
	delivery, err := eventing.NewDelivery("http://flights.default", "http://flights.default/dead-letters", eventing.DeliveryConfig{
		Function: "flights",
		Logger:   logger,
	})
	if err != nil {
		panic(err)
	}
	var saver eventing.Progress // as cmd/source makes it of a sinkwriter.Progress
	source, err := eventing.NewSource([]eventing.Stream{stream}, delivery, saver, eventing.SourceConfig{
		Function: "flights",
		Logger:   logger,
	})
	if err != nil {
		panic(err)
	}
	source.Run(ctx) // until ctx ends
}
