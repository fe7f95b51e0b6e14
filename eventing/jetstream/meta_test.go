package jetstream_test

import (
	"context"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestAStreamThatIsThereIsReadWhileThoseWhoChangeConsumersAreAway(t *testing.T) {
	t.Parallel()

	clusters, link := natstest.StartSuperCluster(t, "east", "west")
	connectEast := func() *jetstream.Conn {
		conn, err := jetstream.Connect(t.Context(), clusters[0].URL(), jetstream.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	createStream(t, nativeTo(t, clusters[0].URL()), natsjs.StreamConfig{
		Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3, Placement: &natsjs.Placement{Cluster: "east"}, AllowDirect: true,
	})
	dead := connectEast()
	publish(t, dead, newEvents(1, 5)...)
	got := map[uint64]bool{}
	eventtest.Eventually(t, "five messages come", func() bool { // and are not acknowledged
		// A consumer on three servers has no leader at first, and is opened again after a 503.
		err := open(t, dead, "east").Pull(t.Context(), 5-len(got), 64<<20, func(m eventing.Message) { got[m.Sequence()] = true })
		return err == nil && len(got) == 5
	})
	if err := dead.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	link.Cut() // three of six servers have no majority
	js := nativeTo(t, clusters[0].URL())
	eventtest.Eventually(t, "no consumer can be made", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), jetstream.RequestTimeout)
		defer cancel()
		_, err := js.CreateConsumer(ctx, "EVENTS", natsjs.ConsumerConfig{Durable: "other"})
		return err != nil
	})
	conn := connectEast()
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	var reader eventing.Reader
	eventtest.Eventually(t, "the stream is opened", func() bool {
		reader, err = stream.Open(t.Context(), eventing.OpenConfig{LooksUp: true})
		return err == nil
	})
	publish(t, conn, newEvents(6, 3)...)
	for i, m := range pull(t, reader, 8) { // first the outstanding messages
		if want := uint64(1 + i); m.Sequence() != want {
			t.Errorf("sequence %d, want %d", m.Sequence(), want)
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventtest.Eventually(t, "all are acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Floor == 9
	})
}
