package source_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func startLogged(t *testing.T, server *natstest.Server, address string, progress source.Checkpoints, logger *slog.Logger, streams ...string) running {
	t.Helper()

	conn := eventtest.Connect(t, server, logger)
	var list eventing.StreamList
	for _, name := range streams {
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, stream)
	}
	delivery, err := delivery.New(address, address+"/dead-letters", delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 20 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(list, delivery, progress, source.Config{
		Function: "flights", InFlight: 32, SaveInterval: 10 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, source)
	return running{source: source, stop: stop, kill: func() {
		_ = conn.Close(t.Context())
		stop()
	}}
}

// run runs a source until stop is called or the test ends.
func run(tb testing.TB, source *source.Source) (stop func()) {
	tb.Helper()

	ctx, cancel := context.WithCancel(tb.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source.Run(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			tb.Error("the source did not end within 30 s")
		}
	}
	tb.Cleanup(stop)
	return stop
}
