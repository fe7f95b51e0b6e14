package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestWithoutAConnectionNothingIsPublished(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publisher := newPublisher(t, connect(t, server))
	publishWith(t, publisher, newEvents(1, 1)...)
	server.Stop()
	eventtest.Eventually(t, "the loss is noticed", func() bool {
		return errors.Is(publisher.Publish(t.Context(), newEvents(2, 1)), jetstream.ErrNotConnected)
	})
	if err := publisher.Ready(t.Context()); !errors.Is(err, jetstream.ErrNotConnected) {
		t.Errorf("Ready: %v", err)
	}
	server.Restart(t)
	eventtest.Eventually(t, "publishing works again", func() bool {
		return publisher.Publish(t.Context(), newEvents(2, 1)) == nil
	})
}

func TestAStreamThatIsMissingIsMadeByWhoPublishes(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "OUTPUTS"})
	if err != nil {
		t.Fatal(err)
	}
	publishWith(t, publisher, newEvents(1, 10)...)
	if err := publisher.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

func TestAStreamThatHasGoneIsMadeAgainByWhoPublishes(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publisher := newPublisher(t, conn)
	publishWith(t, publisher, newEvents(1, 1)...)
	if err := native(t, server).DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	publishWith(t, publisher, newEvents(1, 1)...)
	pull(t, open(t, conn, "east"), 1)
}

func TestAStreamCanBeMadeByManyAtOnce(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	var wg sync.WaitGroup
	for range 8 {
		conn := connect(t, server)
		wg.Go(func() {
			if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestAForeignMessageHasAnIdentityOfItsOwn(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	js := native(t, server)
	if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	foreign := &nats.Msg{Subject: "events.plain", Header: nats.Header{"a": {"1"}, "Content-Type": {"text/plain"}}, Data: []byte("hello")}
	for range 2 {
		if _, err := js.PublishMsg(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
	}
	messages := pull(t, open(t, conn, "east"), 2)
	first, second := messages[0].Event(), messages[1].Event()

	source, id := eventing.Origin{Stream: "EVENTS", Sequence: 1}.Identity("events.plain", foreign.Header, foreign.Data)
	got := []string{first.Source(), first.ID(), first.Type(), first.Subject(), first.DataContentType(), string(first.Data())}
	want := []string{source, id, eventing.MessageType, "events.plain", "text/plain", "hello"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if !first.Time().Equal(messages[0].Arrived()) {
		t.Errorf("time %s, want the arrival %s", first.Time(), messages[0].Arrived())
	}
	if second.ID() == first.ID() {
		t.Error("two equal messages have one identity")
	}
}

func TestIdentityIsTheSameThroughCopiesOfTheStream(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	js := native(t, server)
	if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m := &nats.Msg{Subject: "events.plain", Header: nats.Header{"n": {fmt.Sprint(i)}}, Data: []byte("hello")}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	copies := []natsjs.StreamConfig{
		{Name: "MIRROR", Mirror: &natsjs.StreamSource{Name: "EVENTS"}},
		{Name: "SOURCED", Sources: []*natsjs.StreamSource{{Name: "EVENTS"}}},
	}
	want := identities(pull(t, open(t, conn, "east"), 5))
	for _, cfg := range copies {
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		got := identities(pull(t, openStream(t, conn, strings.ToLower(cfg.Name), cfg.Name), 5))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("identities in %s (-want +got):\n%s", cfg.Name, diff)
		}
	}
}

func TestAStreamMadeAnewHasAnotherEpochAndOtherIdentities(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	js := native(t, server)
	read := func(text string) (epoch string, ids []string) {
		if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "events.plain", []byte(text)); err != nil {
			t.Fatal(err)
		}
		reader := open(t, conn, "east")
		return reader.Epoch(), identities(pull(t, reader, 1))
	}
	epoch, ids := read("one")
	if err := js.DeleteStream(t.Context(), "EVENTS"); err != nil {
		t.Fatal(err)
	}
	epochAnew, idsAnew := read("two")
	if epoch == epochAnew {
		t.Errorf("epoch %s both times", epoch)
	}
	if slices.Equal(ids, idsAnew) {
		t.Errorf("identities %v both times", ids)
	}
}

func TestConnectDoesNotShowAPassword(t *testing.T) {
	t.Parallel()

	for _, address := range []string{"nats://user:secret@127.0.0.1:port", "nats://user:secret@", "://user:secret@x"} {
		_, err := jetstream.Connect(t.Context(), address, jetstream.Config{})
		if err == nil {
			t.Fatalf("connected to %s", address)
		}
		if got := err.Error(); strings.Contains(got, "secret") || !strings.Contains(got, "connect to NATS") {
			t.Errorf("error %q", got)
		}
	}
}

func connect(t *testing.T, server *natstest.Server) *jetstream.Conn {
	t.Helper()

	conn, err := jetstream.Connect(t.Context(), server.URL(), jetstream.Config{Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	eventtest.Eventually(t, "connected to NATS", func() bool { return conn.Ready() == nil || !server.Running() })
	return conn
}

func native(t *testing.T, server *natstest.Server) natsjs.JetStream {
	t.Helper()

	return nativeTo(t, server.URL())
}

func nativeTo(t *testing.T, url string) natsjs.JetStream {
	t.Helper()

	return natstest.JetStream(t, url)
}

// createStream retries a request that servers of a cluster may not answer.
func createStream(t *testing.T, js natsjs.JetStream, cfg natsjs.StreamConfig) {
	t.Helper()

	eventtest.Eventually(t, "the stream is there", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), jetstream.RequestTimeout)
		defer cancel()
		_, err := js.CreateStream(ctx, cfg)
		return err == nil
	})
}

func open(t *testing.T, conn *jetstream.Conn, cluster string) eventing.Reader {
	t.Helper()

	return openStream(t, conn, cluster, "EVENTS")
}

// pull returns exactly n messages and fails if there are more.
func pull(t *testing.T, reader eventing.Reader, n int) []eventing.Message {
	t.Helper()

	var messages []eventing.Message
	for moved := time.Now(); len(messages) < n; {
		before := len(messages)
		if err := reader.Pull(t.Context(), n-len(messages), 64<<20, func(m eventing.Message) { messages = append(messages, m) }); err != nil {
			t.Fatal(err)
		}
		if len(messages) > before {
			moved = time.Now()
		} else if time.Since(moved) > time.Minute || t.Context().Err() != nil {
			t.Fatalf("%d messages came, want %d", len(messages), n)
		}
	}
	return messages
}

func newPublisher(t *testing.T, conn *jetstream.Conn) *jetstream.Publisher {
	t.Helper()

	publisher, err := jetstream.NewPublisher(conn, jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	return publisher
}

func publish(t *testing.T, conn *jetstream.Conn, events ...event.Event) {
	t.Helper()

	publishWith(t, newPublisher(t, conn), events...)
}

func publishWith(t *testing.T, publisher *jetstream.Publisher, events ...event.Event) {
	t.Helper()

	eventtest.Eventually(t, "events are stored", func() bool {
		err := publisher.Publish(t.Context(), events)
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
}

func newEvents(first, n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		e := event.New()
		e.SetID(fmt.Sprintf("test-%06d", first+i))
		e.SetSource("/test")
		e.SetType("com.example.test")
		e.SetDataContentType("application/json")
		e.DataEncoded = fmt.Appendf(nil, `{"n":%d}`, first+i)
		events[i] = e
	}
	return events
}

func identities(messages []eventing.Message) []string {
	var all []string
	for _, m := range messages {
		e := m.Event()
		all = append(all, e.Source()+" "+e.ID())
	}
	return all
}
