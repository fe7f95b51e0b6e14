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

// saveInterval is how often a source saves its checkpoints. Each time it asks the stream for its
// position: the sources and servers of four tests at once would have little else to do at 10 ms.
const saveInterval = 50 * time.Millisecond

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
	return startStreams(t, conn, list, address, progress, delivery.Config{Logger: logger})
}

// startStreams starts a source that reads streams over a connection.
func startStreams(t *testing.T, conn *jetstream.Conn, streams eventing.StreamList, address string, progress source.Checkpoints, cfg delivery.Config) running {
	t.Helper()

	cfg.Function, cfg.BackoffBase, cfg.BackoffCap = "flights", time.Millisecond, 20*time.Millisecond
	sender, err := delivery.New(address, address+"/dead-letters", cfg)
	if err != nil {
		t.Fatal(err)
	}
	source, err := source.New(streams, sender, progress, source.Config{
		Function: "flights", InFlight: 32, SaveInterval: saveInterval, Logger: cfg.Logger,
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
		for begun, tries := time.Now(), 1; ; tries++ { // also within synctest
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if took := time.Since(begun); took > time.Minute && tries > 1000 {
				tb.Errorf("the source did not end within %s", took)
				return
			}
		}
	}
	tb.Cleanup(stop)
	return stop
}
