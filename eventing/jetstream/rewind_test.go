package jetstream_test

import (
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
)

func TestARewoundReaderGivesAgainWhatWasAcknowledged(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publish(t, conn, newEvents(1, 10)...)
	reader := open(t, conn, "east")
	rewind := func(to, want uint64) {
		t.Helper()

		head, err := reader.Rewind(t.Context(), to)
		if err != nil || head != want {
			t.Errorf("rewound to %d from %d, %v, want from %d", to, head, err, want)
		}
	}
	rewind(0, 0) // nothing was handed out
	rewind(5, 0)

	messages := pull(t, reader, 8)
	rewind(3, 0) // and nothing acknowledged
	for _, m := range messages {
		if m.Sequence() == 3 || m.Sequence() == 7 {
			continue
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Unacknowledged == 2
	})
	rewind(9, 0)
	rewind(3, 9)
	position, err := reader.Position(t.Context())
	if want := (eventing.Position{Floor: 3, Head: 3, Pending: 8}); err != nil || position != want {
		t.Errorf("position %+v, %v, want %+v", position, err, want)
	}
	rewind(3, 0) // twice is once
	for i, m := range pull(t, reader, 8) {
		if want := uint64(3 + i); m.Sequence() != want {
			t.Errorf("message %d came, want %d", m.Sequence(), want)
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Floor == 11
	})
	rewind(0, 11)

	// The consumer is as it was.
	consumer, err := native(t, server).Consumer(t.Context(), "EVENTS", "tandem-east-flights")
	if err != nil {
		t.Fatal(err)
	}
	if cfg := consumer.CachedInfo().Config; cfg.AckPolicy != natsjs.AckExplicitPolicy || cfg.MaxDeliver != -1 || cfg.Metadata["tandem-origin"] == "" {
		t.Errorf("the consumer is made anew as %+v", cfg)
	}
}

func TestWhatAStreamHasDroppedIsNotReadAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Retention: natsjs.InterestPolicy}); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server)
	reader := open(t, conn, "east")
	for range 5 {
		if _, err := js.Publish(t.Context(), "events.a", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range pull(t, reader, 5)[1:] {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Unacknowledged == 1
	})
	if head, err := reader.Rewind(t.Context(), 1); err != nil || head != 0 {
		t.Errorf("rewound from %d, %v", head, err)
	}
	// To delete the consumer would have dropped the one that nobody has acknowledged.
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages are left, want the one that is not acknowledged", n)
	}
}
