// Package eventtest is shared by the tests of eventing's packages: events, a log to
// inspect, HTTP servers, and connections to a NATS server of natstest.
package eventtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest/patience"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
)

// NewEvent returns an event of source /test and type com.example.test.
func NewEvent(id string) event.Event {
	e := event.New()
	e.SetID(id)
	e.SetSource("/test")
	e.SetType("com.example.test")
	e.SetDataContentType("application/json")
	e.DataEncoded = json.RawMessage(`{"n":1}`)
	return e
}

// Logger returns a logger and a function that returns the lines written so far.
func Logger() (*slog.Logger, func() []string) {
	b := &Buffer{}
	return slog.New(slog.NewTextHandler(b, nil)), func() []string {
		return slices.Collect(strings.Lines(b.String()))
	}
}

// Buffer holds the bytes written to it. It is safe for concurrent use.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends p.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Eventually waits until ok returns true. It fails the test after a minute and a thousand
// attempts; what describes the claim that was not met.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()

	patience.Until(tb, what, ok)
}

// Reaches waits until count returns at least n. It fails the test after a minute and a thousand
// attempts without progress, however long the whole wait takes.
func Reaches(tb testing.TB, what string, n int, count func() int) {
	tb.Helper()

	best, w := -1, patience.Wait{}
	for {
		now := count()
		if now >= n {
			return
		}
		if now > best {
			best, w = now, patience.Wait{}
		}
		if w.Over(tb) {
			tb.Fatalf("%s: %d of %d, and no progress for %s", what, best, n, w.Waited())
		}
	}
}

// Stalls returns a function that returns the longest time since then for which this process
// stalled, as on a busy machine. A stall below the timeouts of the tested code explains no
// failure.
func Stalls(tb testing.TB) func() time.Duration {
	tb.Helper()

	var longest atomic.Int64
	go func() {
		for last := time.Now(); tb.Context().Err() == nil; last = time.Now() {
			time.Sleep(10 * time.Millisecond)
			if late := int64(time.Since(last)); late > longest.Load() {
				longest.Store(late)
			}
		}
	}()
	return func() time.Duration { return time.Duration(longest.Load()) }
}

// Serve starts an HTTP server that ends with the test, and returns its URL. Its answers
// have a receipt, like a function's, unless handle deletes it.
func Serve(tb testing.TB, handle http.HandlerFunc) string {
	tb.Helper()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptLost)
		handle(w, r)
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// FreeAddress returns an address on which a process that a test starts can listen.
func FreeAddress(tb testing.TB) string {
	tb.Helper()

	port, err := devcluster.FreePort()
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Connect connects to a NATS server until the test ends. If the server runs, it waits for
// the connection. A nil logger discards everything.
func Connect(tb testing.TB, server *natstest.Server, logger *slog.Logger) *jetstream.Conn {
	tb.Helper()

	conn, err := jetstream.Connect(tb.Context(), server.URL(), jetstream.Config{Logger: logger})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.Background()) })
	Eventually(tb, "connected to NATS", func() bool { return conn.Ready() == nil || !server.Running() })
	return conn
}

// NewSender returns a sender of function flights whose backoff is short.
func NewSender(tb testing.TB, function, deadLetters string) *delivery.Sender {
	tb.Helper()

	sender, err := delivery.New(function, deadLetters, delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 20 * time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return sender
}

// Publish stores n events in a stream, whose ids are test-%06d from first on. It publishes
// again after an error, as the contract of a publisher allows: a server that has just deleted
// its last stream removes the folder of all streams a moment later, and until then cannot
// create another.
func Publish(tb testing.TB, server *natstest.Server, stream string, first, n int) {
	tb.Helper()

	publisher, err := jetstream.NewPublisher(Connect(tb, server, nil), jetstream.StreamConfig{Name: stream})
	if err != nil {
		tb.Fatal(err)
	}
	events := make([]event.Event, n)
	for i := range events {
		events[i] = NewEvent(fmt.Sprintf("test-%06d", first+i))
	}
	Eventually(tb, "events are stored", func() bool {
		err := publisher.Publish(tb.Context(), events)
		if err != nil {
			tb.Logf("publish %d events to %s: %v", n, stream, err)
		}
		return err == nil
	})
}
