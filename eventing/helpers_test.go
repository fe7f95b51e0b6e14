package eventing_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// logTo gives a logger and what it has written so far, line by line.
func logTo() (*slog.Logger, func() []string) {
	b := &lockedBuffer{}
	return slog.New(slog.NewTextHandler(b, nil)), func() []string {
		return slices.Collect(strings.Lines(b.String()))
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()

	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func startLogged(t *testing.T, server *natstest.Server, sink string, progress eventing.Progress, logger *slog.Logger, streams ...string) running {
	t.Helper()

	conn := connectLogged(t, server, logger)
	var list []eventing.Stream
	for _, name := range streams {
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, stream)
	}
	delivery, err := eventing.NewDelivery(sink, sink+"/dead-letters", eventing.DeliveryConfig{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 20 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	source, err := eventing.NewSource(list, delivery, progress, eventing.SourceConfig{
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
func run(tb testing.TB, source *eventing.Source) (stop func()) {
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
