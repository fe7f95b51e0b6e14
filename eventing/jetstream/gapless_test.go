package jetstream_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// A message that was delivered to another subscriber is detected before any later one
// is passed on. No gap is reported where nothing is missing, for example after a
// request that its size ended.
func TestAGapIsNoticed(t *testing.T) {
	t.Parallel()

	c := natstest.StartCluster(t)
	conn, err := jetstream.Connect(t.Context(), c.URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	js := nativeTo(t, c.URL())
	createStream(t, js, natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3})
	publish(t, conn, newEvents(1, 300)...)
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	openGapless := func() eventing.Reader {
		t.Helper()
		reader, err := stream.Open(t.Context(), eventing.OpenConfig{Gapless: true})
		if err != nil {
			t.Fatal(err)
		}
		return reader
	}
	last := uint64(0)
	take := func(reader eventing.Reader, n, bytes int) (err error) {
		t.Helper()
		before := last
		eventtest.Eventually(t, "the consumer has a leader", func() bool {
			err = reader.Pull(t.Context(), n, bytes, func(m eventing.Message) {
				if m.Sequence() != last+1 {
					t.Errorf("message %d comes after %d", m.Sequence(), last)
				}
				last = m.Sequence()
				if err := m.Ack(); err != nil {
					t.Error(err)
				}
			})
			return err == nil || last > before || errors.Is(err, eventing.ErrMissed)
		})
		return err
	}

	reader := openGapless()
	for range 10 { // ended by the number of messages, and by their size
		if err := errors.Join(take(reader, 10, 1<<20), take(reader, 100, 600)); err != nil {
			t.Fatal(err)
		}
	}
	consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := consumer.Fetch(2)
	if err != nil {
		t.Fatal(err)
	}
	for range stolen.Messages() { // without acknowledging them
	}
	before := last
	if err := take(reader, 10, 1<<20); !errors.Is(err, eventing.ErrMissed) || last != before {
		t.Fatalf("after two were delivered elsewhere: %v, and %d messages", err, last-before)
	}

	// After opening it again the missed messages are redelivered: the two, and the ten that it
	// did not pass on, in the order of the server.
	var again []uint64
	for _, m := range pullN(t, openGapless(), 12) {
		again = append(again, m.Sequence())
	}
	slices.Sort(again)
	for i, sequence := range again {
		if sequence != before+1+uint64(i) {
			t.Fatalf("opened again, it has %v, want those from %d", again, before+1)
		}
	}
}
