package jetstream_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// These guarantees exceed those of package streamtest.

func TestAnAcknowledgedMessageIsNotRedeliveredWhateverWasBefore(t *testing.T) {
	t.Parallel()

	server := startServer(t)
	publishN(t, server, 10)
	conn := connect(t, server.Server)
	messages := pullN(t, openReader(t, process{conn}), 10)
	for _, m := range messages[2:8] {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, m := range pullN(t, openReader(t, server.Connect(t)), 4) {
		got = append(got, m.Sequence())
	}
	if diff := cmp.Diff([]uint64{1, 2, 9, 10}, got); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
}

func TestNakRedeliversAtOnce(t *testing.T) {
	t.Parallel()

	server := startServer(t)
	publishN(t, server, 1)
	reader := openReader(t, server.Connect(t))
	for range 3 {
		if err := pullN(t, reader, 1)[0].Nak(); err != nil {
			t.Fatal(err)
		}
	}
	if m := pullN(t, reader, 1)[0]; m.Sequence() != 1 {
		t.Errorf("sequence %d, want 1", m.Sequence())
	}
}

func TestAnEventIsStoredOnceBySourceAndID(t *testing.T) {
	t.Parallel()

	server := startServer(t)
	publishN(t, server, 100)
	publishN(t, server, 100)
	other := eventtest.NewEvent("test-000001")
	other.SetSource("/other")
	publish(t, connect(t, server.Server), other)
	reader := openReader(t, server.Connect(t))
	if got := pullN(t, reader, 101)[100].Event(); got.Source() != "/other" {
		t.Errorf("the last message is %v, want the one of the other source", got)
	}
	if position, err := reader.Position(t.Context()); err != nil || position.Pending != 0 {
		t.Errorf("position %+v, %v, want nothing pending", position, err)
	}
}

func publishN(t *testing.T, server server, n int) {
	t.Helper()

	eventtest.Publish(t, server.Server, "EVENTS", 1, n)
}

func openReader(t *testing.T, p interface {
	Stream(t *testing.T, cluster string) eventing.Stream
},
) eventing.Reader {
	t.Helper()

	var reader eventing.Reader
	var err error
	eventtest.Eventually(t, "the stream can be opened", func() bool {
		reader, err = p.Stream(t, "east").Open(t.Context(), eventing.OpenConfig{})
		return err == nil
	})
	return reader
}

func pullN(t *testing.T, reader eventing.Reader, n int) (messages []eventing.Message) {
	t.Helper()

	eventtest.Eventually(t, "the messages arrive", func() bool {
		if err := reader.Pull(context.WithoutCancel(t.Context()), n-len(messages), 64<<20, func(m eventing.Message) { messages = append(messages, m) }); err != nil {
			t.Fatal(err)
		}
		return len(messages) == n
	})
	return messages
}
