package feed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/feed"
)

// natsServer is a NATS server in the test's process that can be stopped and
// restarted.
type natsServer struct {
	dir  string
	port int

	mu  sync.Mutex
	srv *server.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	port, err := devcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	n := &natsServer{dir: t.TempDir(), port: port}
	n.start(t)
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start(t *testing.T) {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server is not ready after a minute")
	}
	n.mu.Lock()
	n.srv = srv
	n.mu.Unlock()
}

func (n *natsServer) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}

func (n *natsServer) url() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port))
}

func (n *natsServer) connect(t *testing.T) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(n.url(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func (n *natsServer) publisher(t *testing.T) *jetstream.Publisher {
	t.Helper()
	conn, err := jetstream.Connect(t.Context(), n.url(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for conn.Ready() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	cfg := jetstream.StreamConfig{Name: "EVENTS"}
	if err := conn.EnsureStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	p, err := jetstream.NewPublisher(conn, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ids reads the ids of all events in the stream.
func (n *natsServer) ids(t *testing.T) []string {
	t.Helper()
	js, err := natsjs.New(n.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := jetstream.Ask(t.Context(), func(ctx context.Context) (natsjs.Stream, error) { return js.Stream(ctx, "EVENTS") })
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := jetstream.Ask(t.Context(), func(ctx context.Context) (natsjs.Consumer, error) {
		return stream.OrderedConsumer(ctx, natsjs.OrderedConsumerConfig{})
	})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	var ids []string
	for range stream.CachedInfo().State.Msgs {
		msg, err := messages.Next()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, msg.Headers()["ce-id"][0])
	}
	return ids
}

func number(n int) event.Event {
	e := event.New()
	e.SetID(strconv.Itoa(n))
	e.SetSource("/test")
	e.SetType("com.example.number")
	return e
}

// numbers returns events with the ids from+1 to n.
func numbers(from, n int) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		for i := from + 1; i <= n; i++ {
			if !yield(number(i), nil) {
				return
			}
		}
	}
}

func TestFlightsAreTheSameEachTime(t *testing.T) {
	t.Parallel()

	var first, last []string
	seen := make(map[string]bool)
	for e, err := range feed.FlightEvents(0) {
		if err != nil {
			t.Fatal(err)
		}
		if seen[e.ID()] {
			t.Fatalf("id %s comes twice", e.ID())
		}
		seen[e.ID()] = true
		last = []string{e.ID(), e.Source(), e.Type(), e.Subject(), e.Time().Format(time.RFC3339), e.DataContentType(), string(e.Data())}
		if first == nil {
			first = last
		}
	}
	if len(seen) != feed.Flights {
		t.Errorf("%d flights, want %d", len(seen), feed.Flights)
	}
	if diff := cmp.Diff([]string{
		"flight-2001-000001", "/tandem/flights-2001", "com.example.flight.departed", "DTW", "2001-01-01T00:47:00Z", "application/json",
		`{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","destination":"LAS"}`,
	}, first); diff != "" {
		t.Errorf("first flight (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"flight-2001-020000", "/tandem/flights-2001", "com.example.flight.departed", "CLT", "2001-03-31T22:27:00Z", "application/json",
		`{"date":"2001/03/31 22:27","delay":-9,"distance":83,"origin":"CLT","destination":"GSO"}`,
	}, last); diff != "" {
		t.Errorf("last flight (-want +got):\n%s", diff)
	}
	for e, err := range feed.FlightEvents(19_999) {
		if err != nil || e.ID() != "flight-2001-020000" {
			t.Errorf("after 19,999 comes %s, err %v", e.ID(), err)
		}
	}
}

func TestFlightsComeToTheTruth(t *testing.T) {
	t.Parallel()

	got := make(map[string]feed.Totals)
	var all feed.Totals
	for e, err := range feed.FlightEvents(0) {
		if err != nil {
			t.Fatal(err)
		}
		airport, one, err := feed.TotalsOf(e)
		if err != nil {
			t.Fatal(err)
		}
		got[airport] = got[airport].Plus(one)
		all = all.Plus(one)
	}
	want, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("totals by airport (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(feed.Totals{Flights: 20_000, DelayMinutes: 154_078, Delayed: 1_108}, all); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
}

func TestSecondRunGoesOnWhereTheFirstEnded(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	publisher := n.publisher(t)
	positions, err := feed.NewPositions(n.connect(t), "EVENTS", "numbers")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var saved atomic.Int64
	first := feed.New(publisher, feed.Config{Rate: 5_000, Save: func(ctx context.Context, position int) error {
		err := positions.Save(ctx, position)
		if err == nil {
			saved.Store(int64(position))
		}
		return err
	}})
	cutOff := func(yield func(event.Event, error) bool) {
		for e, err := range numbers(0, 3_000) {
			if e.ID() == "1500" {
				for saved.Load() < 100 && t.Context().Err() == nil {
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
				return
			}
			if !yield(e, err) {
				return
			}
		}
	}
	if err := first.Run(ctx, 0, cutOff); !errors.Is(err, context.Canceled) {
		t.Fatalf("run that is cut off: %v, want context.Canceled", err)
	}
	if first.Complete() {
		t.Error("a run that was cut off says that it is complete")
	}

	position, err := positions.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if position < 100 || position >= 1_500 {
		t.Fatalf("position %d after the first run, want most of 1,499", position)
	}
	second := feed.New(publisher, feed.Config{Save: positions.Save})
	if err := second.Run(t.Context(), position, numbers(position, 3_000)); err != nil {
		t.Fatal(err)
	}
	if got := second.Published(); got != int64(3_000-position) || !second.Complete() {
		t.Errorf("the second run published %d, want %d", got, 3_000-position)
	}
	ids := n.ids(t)
	slices.Sort(ids)
	if len(ids) != 3_000 || len(slices.Compact(ids)) != 3_000 {
		t.Errorf("%d events in the stream, want each of 3,000 once", len(ids))
	}
	if position, err := positions.Load(t.Context()); err != nil || position != 3_000 {
		t.Errorf("position %d, err %v in the end; want 3,000", position, err)
	}
}

func TestPositionIsOfThisStreamAndNotOfOneBefore(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	n.publisher(t)
	conn := n.connect(t)
	positions, err := feed.NewPositions(conn, "EVENTS", "numbers")
	if err != nil {
		t.Fatal(err)
	}
	if err := positions.Save(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := jetstream.Do(t.Context(), func(ctx context.Context) error { return js.DeleteStream(ctx, "EVENTS") }); err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
		t.Fatal(err)
	}
	n.publisher(t) // recreates it
	if position, err := positions.Load(t.Context()); err != nil || position != 0 {
		t.Errorf("position %d, err %v in a new stream; want 0", position, err)
	}
}

func TestFeedGoesOnWhenTheServerComesBack(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	publisher := n.publisher(t)
	const events = 4_000
	f := feed.New(publisher, feed.Config{Rate: 4_000})
	done := make(chan error, 1)
	// Half of the events follow after the stop, whenever this goroutine gets there.
	stopped := make(chan struct{})
	go func() {
		done <- f.Run(t.Context(), 0, func(yield func(event.Event, error) bool) {
			for e, err := range numbers(0, events) {
				if e.ID() == strconv.Itoa(events/2) {
					<-stopped
				}
				if !yield(e, err) {
					return
				}
			}
		})
	}()
	eventually(t, "events are published", func() bool { return f.Published() >= 500 })
	n.stop()
	close(stopped)
	eventually(t, "the feed reports trouble", func() bool { return f.Trouble() != nil })
	n.start(t)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := f.Trouble(); err != nil {
		t.Errorf("trouble in the end: %v", err)
	}
	ids := n.ids(t)
	slices.Sort(ids)
	if got := len(slices.Compact(ids)); got != events {
		t.Errorf("%d different events in the stream, want %d", got, events)
	}
}

func TestRateIsNotExceeded(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	f := feed.New(n.publisher(t), feed.Config{Rate: 1_000})
	start := time.Now()
	if err := f.Run(t.Context(), 0, numbers(0, 1_000)); err != nil {
		t.Fatal(err)
	}
	// A busy machine may be slower.
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("1,000 events at 1,000 a second took only %s", took)
	}
}

func TestTypedEventIsPublishedBeforeTheNext(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	f := feed.New(n.publisher(t), feed.Config{Rate: 10_000})
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context(), 0, feed.Lines(r)) }()
	for i := range 3 {
		if _, err := fmt.Fprintf(w, `{"specversion":"1.0","id":"%d","source":"/s","type":"t"}`+"\n", i); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the event is published", func() bool { return f.Published() == int64(i+1) })
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFeedEndsWhileItWaitsForAnEvent(t *testing.T) {
	t.Parallel()

	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	f := feed.New(startNATS(t).publisher(t), feed.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, 0, feed.Lines(r)) }()
	if _, err := fmt.Fprintln(w, `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is published", func() bool { return f.Published() == 1 })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that the context was canceled", err)
		}
	case <-time.After(time.Minute):
		t.Error("it still waits for the next event a minute after its context ended")
	}
}

func TestWhatIsNoEventIsLeftOutAndTold(t *testing.T) {
	t.Parallel()

	n := startNATS(t)
	var mu sync.Mutex
	var told []string
	f := feed.New(n.publisher(t), feed.Config{Skipped: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}})
	input := `{"specversion":"1.0","id":"a","source":"/s","type":"t","data":{"x": 1}}
no json

{"specversion":"1.0","source":"/s","type":"t"}
{"specversion":"1.0","id":"long","source":"/s","type":"t","data":"` + strings.Repeat("x", 2<<20) + `"}
{"specversion":"1.0","id":"longer","source":"/s","type":"t","data":"` + strings.Repeat("x", 9<<20) + `"}
   {"specversion":"1.0","id":"b","source":"/s","type":"t"}`
	if err := f.Run(t.Context(), 0, feed.Lines(strings.NewReader(input))); err != nil {
		t.Fatal(err)
	}
	ids := n.ids(t)
	slices.Sort(ids)
	if diff := cmp.Diff([]string{"a", "b"}, ids); diff != "" {
		t.Errorf("events in the stream (-want +got):\n%s", diff)
	}
	if f.Published() != 2 || f.Skipped() != 4 || !f.Complete() {
		t.Errorf("published %d, skipped %d, complete %t; want 2, 4, true", f.Published(), f.Skipped(), f.Complete())
	}
	slices.Sort(told)
	for i, want := range []string{"event long of /s: ", "line 2: ", "line 4: ", "line 6: longer than 8 MiB"} {
		if i >= len(told) || !strings.HasPrefix(told[i], want) {
			t.Errorf("told %q, want %d to begin with %q", told, i, want)
		}
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()

	begin := time.Now()
	for n := 1; !ok(); n++ {
		if n > 1000 && time.Since(begin) > time.Minute {
			t.Fatalf("not within %s, in %d tries: %s", time.Since(begin).Round(time.Second), n, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
