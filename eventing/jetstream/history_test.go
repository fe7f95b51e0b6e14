package jetstream_test

import (
	"context"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestHistoryIsWhatTheStreamHoldsAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn, err := jetstream.Connect(t.Context(), server.URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	js := natstest.JetStream(t, server.URL())
	stream, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := jetstream.StreamConfig{Name: "EVENTS"}
	read := func(from, until uint64) (sequences []uint64) {
		t.Helper()
		if err := conn.History(t.Context(), cfg, from, until, func(p jetstream.Past) error {
			if p.Event.ID() == "" || p.Event.Source() != "/tandem/streams/EVENTS" {
				t.Errorf("message %d is %v", p.Sequence, p.Event)
			}
			sequences = append(sequences, p.Sequence)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return sequences
	}
	if got := read(1, 1<<60); len(got) != 0 {
		t.Errorf("an empty stream holds %v", got)
	}
	for range 5 {
		if _, err := js.Publish(t.Context(), "events.x", []byte("no CloudEvent")); err != nil {
			t.Fatal(err)
		}
	}
	for _, gone := range []uint64{1, 3, 5} {
		if err := stream.DeleteMsg(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(1, 1<<60); len(got) != 2 || got[0] != 2 || got[1] != 4 {
		t.Errorf("the stream holds %v, want 2 and 4", got)
	}
	if got := read(3, 3); len(got) != 0 {
		t.Errorf("message 3 is deleted, read %v", got)
	}
	if got := read(5, 5); len(got) != 0 {
		t.Errorf("message 5 is deleted, read %v", got)
	}
	extent, err := conn.Extent(t.Context(), cfg)
	if err != nil || extent.Origin != "EVENTS" || extent.First != 2 || extent.Last != 5 || extent.Epoch == "" {
		t.Errorf("Extent: %+v, %v", extent, err)
	}
}
