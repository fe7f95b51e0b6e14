package jetstream_test

import (
	"context"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// Connect returns at once. It retries until a server answers, and reconnects after every
// loss of the connection.
func ExampleConnect() {
	ctx := context.Background()
	conn, err := jetstream.Connect(ctx, "nats://nats-0:4222,nats://nats-1:4222", jetstream.Config{
		Name:   "orders-east",
		Logger: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
	if err != nil {
		log.Fatal(err) // the address is invalid
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := conn.Close(ctx); err != nil {
		log.Print(err)
	}
}

// A stream as one cluster and function read it, with their own durable consumer.
func ExampleNewStream() {
	conn, err := jetstream.Connect(context.Background(), "nats://localhost:4222", jetstream.Config{})
	if err != nil {
		log.Fatal(err)
	}
	stream, err := jetstream.NewStream(conn, "east", "orders", jetstream.ParseStream("EVENTS"))
	if err != nil {
		log.Fatal(err)
	}
	_ = stream // an eventing.Stream for a source
}

// Publish returns after the stream has stored the events. An event that is published
// again within the stream's duplicate window is stored once.
func ExampleNewPublisher() {
	ctx := context.Background()
	conn, err := jetstream.Connect(ctx, "nats://localhost:4222", jetstream.Config{})
	if err != nil {
		log.Fatal(err)
	}
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS", Replicas: 3})
	if err != nil {
		log.Fatal(err)
	}
	e := event.New()
	e.SetID("order-17")
	e.SetSource("/shop")
	e.SetType("com.example.order.placed")
	if err := publisher.Publish(ctx, []event.Event{e}); err != nil {
		log.Fatal(err)
	}
}
