package ingest_test

import (
	"context"
	"net/http"
	"time"

	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func ExampleNew() {
	ctx := context.Background()
	conn, err := jetstream.Connect(ctx, "nats://127.0.0.1:4222", jetstream.Config{Name: "example"})
	if err != nil {
		panic(err)
	}
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS", Replicas: 3})
	if err != nil {
		panic(err)
	}
	handler, err := ingest.New(publisher, ingest.Config{Ready: publisher.Ready})
	if err != nil {
		panic(err)
	}
	server := &http.Server{
		Addr:              "127.0.0.1:8080",
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
	}
	if err := server.ListenAndServe(); err != nil {
		panic(err)
	}
}
