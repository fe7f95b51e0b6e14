package jetstream_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestMessagesThatVanishBeforeTheyAreDeliveredAreCounted(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publish(t, conn, newEvents(1, 20)...)
	stored, err := native(t, server).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	remove := func(from, until uint64) {
		t.Helper()
		for sequence := from; sequence <= until; sequence++ {
			if err := stored.DeleteMsg(t.Context(), sequence); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []string
	open := func(stream *jetstream.Stream) eventing.Reader {
		t.Helper()
		reader, err := stream.Open(t.Context(), eventing.OpenConfig{Vanished: func(from, messages uint64) {
			got = append(got, fmt.Sprintf("%d from %d", messages, from))
		}})
		if err != nil {
			t.Fatal(err)
		}
		return reader
	}
	newStream := func() *jetstream.Stream {
		t.Helper()
		stream, err := jetstream.NewStream(connect(t, server), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	read := func(reader eventing.Reader, n int, ack bool) {
		t.Helper()
		for _, m := range pull(t, reader, n) {
			if !ack {
				continue
			}
			if err := m.Ack(); err != nil {
				t.Fatal(err)
			}
		}
		eventtest.Eventually(t, "they are acknowledged", func() bool {
			position, err := reader.Position(t.Context())
			return err == nil && (!ack || position.Unacknowledged == 0)
		})
	}
	want := func(reports ...string) {
		t.Helper()
		if diff := cmp.Diff(reports, got); diff != "" {
			t.Errorf("vanished (-want +got):\n%s", diff)
		}
		got = nil
	}

	// Messages deleted before a consumer exists have not vanished.
	remove(1, 2)
	stream := newStream()
	reader := open(stream)
	read(reader, 3, true) // 3, 4, 5
	want()
	remove(6, 8)
	remove(10, 10)
	read(reader, 2, true) // 9, 11
	want("3 from 6", "1 from 10")

	// While the stream is not open; a purge moves the consumer.
	if err := stored.Purge(t.Context(), natsjs.WithPurgeSequence(14)); err != nil {
		t.Fatal(err)
	}
	reader = open(stream)
	read(reader, 1, true) // 14
	want("2 from 12")

	// In another process.
	remove(15, 15)
	stream = newStream()
	reader = open(stream)
	read(reader, 2, false) // 16, 17
	want("1 from 15")

	// Messages that were delivered before have not vanished.
	remove(16, 16)
	reader = open(stream)
	read(reader, 2, true) // 17, 18
	want()

	// A rewind to deleted messages.
	if _, err := reader.Rewind(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	read(reader, 5, true) // 14, 17, 18, 19, 20
	want("5 from 9", "2 from 15")

	// A purge while no process runs that has saved that everything below 21 is
	// acknowledged.
	publish(t, conn, newEvents(21, 10)...)
	if err := stored.Purge(t.Context(), natsjs.WithPurgeSequence(26)); err != nil {
		t.Fatal(err)
	}
	stream = newStream()
	reader = open(stream)
	if late, err := reader.Rewind(t.Context(), 21); late != 0 || err != nil {
		t.Errorf("rewind: %d, %v; want nothing to be done", late, err)
	}
	read(reader, 5, true) // 26 to 30
	want("5 from 21")
}

func TestAReaderKnowsWhichMessagesItsStreamHasDeleted(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publish(t, conn, newEvents(1, 10)...)
	stream, err := jetstream.NewStream(connect(t, server), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	reader, err := stream.Open(t.Context(), eventing.OpenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := native(t, server).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stored.Purge(t.Context(), natsjs.WithPurgeSequence(4)); err != nil {
		t.Fatal(err)
	}
	if err := stored.DeleteMsg(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	knows, ok := reader.(interface {
		Missing(ctx context.Context, sequences []uint64) ([]uint64, error)
	})
	if !ok {
		t.Fatal("the reader has no method Missing")
	}
	got, err := knows.Missing(t.Context(), []uint64{1, 3, 4, 5, 6, 10})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{1, 3, 6}, got); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}
