package source_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

func TestASourceThatIsKilledWhileNoConsumerCanBeChangedGoesOn(t *testing.T) {
	t.Parallel()

	clusters, link := natstest.StartSuperCluster(t, "east", "west")
	js := natstest.JetStream(t, clusters[0].URL())
	ask := func(request func(ctx context.Context) error) bool {
		ctx, cancel := context.WithTimeout(t.Context(), jetstream.RequestTimeout)
		defer cancel()
		return request(ctx) == nil
	}
	eventtest.Eventually(t, "the stream is there", func() bool {
		return ask(func(ctx context.Context) error {
			_, err := js.CreateStream(ctx, natsjs.StreamConfig{
				Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3, Placement: &natsjs.Placement{Cluster: "east"}, AllowDirect: true,
			})
			return err
		})
	})
	connect := func() *jetstream.Conn {
		t.Helper()
		conn, err := jetstream.Connect(t.Context(), clusters[0].URL(), jetstream.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	publish := func(first, n int) {
		t.Helper()
		publisher, err := jetstream.NewPublisher(connect(), jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		var events []event.Event
		for i := range n {
			events = append(events, eventtest.NewEvent(fmt.Sprintf("test-%06d", first+i)))
		}
		eventtest.Eventually(t, "they are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
	}

	f, p := newFunction(t), &progress{}
	logger, lines := eventtest.Logger()
	start := func() running {
		conn := connect()
		stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), p, source.Config{
			Function: "flights", SaveInterval: saveInterval, Logger: logger,
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		return running{source: s, kill: func() {
			_ = conn.Close(t.Context())
			stop()
		}}
	}
	first := start()
	publish(1, 20)
	eventtest.Eventually(t, "they are acknowledged", func() bool { return p.floor("EVENTS") == 21 })
	first.kill()
	// The last save did not complete before the process was killed.
	p.set(func(p *progress) {
		row := p.rows["EVENTS"]
		row.Floor = 11
		p.rows["EVENTS"] = row
	})

	link.Cut() // three of six servers have no majority
	eventtest.Eventually(t, "no consumer can be made", func() bool {
		return !ask(func(ctx context.Context) error {
			_, err := js.CreateConsumer(ctx, "EVENTS", natsjs.ConsumerConfig{Durable: "other"})
			return err
		})
	})
	begun := time.Now()
	start()
	publish(21, 5)
	f.waitFor(t, 25)
	t.Logf("delivered after %s", time.Since(begun))
	eventtest.Eventually(t, "everything is acknowledged and saved", func() bool { return p.floor("EVENTS") == 26 })
	if f.tried("/ test-000011") < 2 || f.tried("/ test-000020") < 2 {
		t.Errorf("floor %d was saved before what may be lost was read again", p.floor("EVENTS"))
	}
	if f.tried("/ test-000010") != 1 {
		t.Errorf("messages below the floor were read again: %q", lines())
	}
}
