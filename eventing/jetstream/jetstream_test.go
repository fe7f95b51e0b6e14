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
	"github.com/tandem-fn/tandem/eventing/internal/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestPublishedEventsAreReadInOrderWithTheirAttributes(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	events := newEvents(1, 2000)
	publish(t, conn, events...)

	reader := open(t, conn, "east")
	for i, m := range pull(t, reader, len(events)) {
		got := m.Event()
		if got.ID() != events[i].ID() || got.Source() != "/test" || string(got.Data()) != string(events[i].Data()) {
			t.Fatalf("message %d is %v", i, got)
		}
		if m.Sequence() != uint64(i+1) {
			t.Fatalf("message %d has sequence %d", i, m.Sequence())
		}
		if m.Arrived().IsZero() {
			t.Fatalf("message %d has no arrival", i)
		}
	}
}

func TestEveryClusterSeesEverything(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	publish(t, conn, newEvents(1, 10)...)
	for _, cluster := range []string{"east", "west"} {
		for _, m := range pull(t, open(t, conn, cluster), 10) {
			if err := m.Ack(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestARepeatedEventIsStoredOnceByItsSourceAndID(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	first, second := connect(t, server), connect(t, server)
	events := newEvents(1, 100)
	publish(t, first, events...)
	publish(t, second, events...)
	other := newEvents(1, 1)[0]
	other.SetSource("/other") // the same id
	publish(t, second, other)

	messages := pull(t, open(t, first, "east"), 101)
	if got := messages[100].Event(); got.Source() != "/other" {
		t.Errorf("last message is %v, want the one of the other source", got)
	}
}

func TestPublishMayBeUsedConcurrently(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	publisher := newPublisher(t, conn)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := publisher.Publish(t.Context(), newEvents(i*200, 200)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, m := range pull(t, open(t, conn, "east"), 4000) {
		ids[m.Event().ID()] = true
	}
	if len(ids) != 4000 {
		t.Errorf("%d distinct events, want 4000", len(ids))
	}
}

func TestPublishReturnsAnErrorWhenNotAllAreStored(t *testing.T) {
	t.Parallel()

	t.Run("no connection", func(t *testing.T) {
		t.Parallel()

		server := natstest.Start(t)
		publisher := newPublisher(t, connect(t, server))
		publishWith(t, publisher, newEvents(1, 1)...)
		server.Stop()
		eventually(t, "the loss is noticed", func() bool {
			return errors.Is(publisher.Publish(t.Context(), newEvents(2, 1)), jetstream.ErrNotConnected)
		})
		if err := publisher.Ready(t.Context()); !errors.Is(err, jetstream.ErrNotConnected) {
			t.Errorf("Ready: %v", err)
		}
		server.Restart(t)
		eventually(t, "publishing works again", func() bool {
			return publisher.Publish(t.Context(), newEvents(2, 1)) == nil
		})
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()

		publisher := newPublisher(t, connect(t, natstest.Start(t)))
		e := newEvents(1, 1)[0]
		e.DataEncoded = make([]byte, 2<<20)
		if err := publisher.Publish(t.Context(), []event.Event{e}); !errors.Is(err, eventing.ErrTooLarge) {
			t.Errorf("Publish: %v, want ErrTooLarge", err)
		}
	})
	t.Run("no CloudEvent", func(t *testing.T) {
		t.Parallel()

		publisher := newPublisher(t, connect(t, natstest.Start(t)))
		if err := publisher.Publish(t.Context(), []event.Event{event.New()}); err == nil {
			t.Error("Publish took an event without attributes")
		}
	})
	t.Run("the context ended", func(t *testing.T) {
		t.Parallel()

		publisher := newPublisher(t, connect(t, natstest.Start(t)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := publisher.Publish(ctx, newEvents(1, 10)); !errors.Is(err, context.Canceled) {
			t.Errorf("Publish: %v", err)
		}
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

func TestTheFloorStaysBelowWhatIsNotAcknowledged(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	publish(t, conn, newEvents(1, 10)...)
	reader := open(t, conn, "east")
	messages := pull(t, reader, 6)
	ack := func(sequences ...int) {
		for _, s := range sequences {
			if err := messages[s-1].Ack(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(floor, pending, unacknowledged uint64) {
		t.Helper()

		want := eventing.Position{Floor: floor, Head: 7, Pending: pending, Unacknowledged: unacknowledged}
		var got eventing.Position
		eventually(t, fmt.Sprintf("position is %+v", want), func() bool {
			var err error
			if got, err = reader.Position(t.Context()); err != nil {
				t.Fatal(err)
			}
			return got == want
		})
	}

	want(1, 4, 6)
	ack(6, 3, 2)
	want(1, 4, 3)
	ack(1)
	want(4, 4, 2)
	ack(5, 4)
	want(7, 4, 0)
}

func TestWhatADeadReaderHeldComesAgainAtOnce(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	dead := connect(t, server)
	publish(t, dead, newEvents(1, 10)...)
	messages := pull(t, open(t, dead, "east"), 10)
	for _, m := range messages[2:8] {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dead.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	begun := time.Now()
	var got []uint64
	for _, m := range pull(t, open(t, connect(t, server), "east"), 4) {
		got = append(got, m.Sequence())
	}
	if diff := cmp.Diff([]uint64{1, 2, 9, 10}, got); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("took %s, which is about AckWait", took)
	}
}

func TestAReleasedMessageComesAgainAtOnce(t *testing.T) {
	t.Parallel()

	conn := connect(t, natstest.Start(t))
	publish(t, conn, newEvents(1, 1)...)
	reader := open(t, conn, "east")
	if err := pull(t, reader, 1)[0].Release(0); err != nil {
		t.Fatal(err)
	}
	if got := pull(t, reader, 1)[0].Sequence(); got != 1 {
		t.Errorf("sequence %d, want 1", got)
	}
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

func TestPullFailsWhenTheServerGoesAwayAndAnOpenStreamGoesOn(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	reader := open(t, conn, "east")
	failed := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = reader.Pull(t.Context(), 10, 1<<20, func(eventing.Message) {})
		}
		failed <- err
	}()
	server.Stop()
	if err := <-failed; err == nil {
		t.Error("Pull did not fail")
	}
	server.Restart(t)

	publisher := newPublisher(t, conn)
	eventually(t, "publishing works again", func() bool {
		return publisher.Publish(t.Context(), newEvents(1, 1)) == nil
	})
	pull(t, open(t, conn, "east"), 1)
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
	return conn
}

func native(t *testing.T, server *natstest.Server) natsjs.JetStream {
	t.Helper()

	return nativeTo(t, server.URL())
}

func nativeTo(t *testing.T, url string) natsjs.JetStream {
	t.Helper()

	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func open(t *testing.T, conn *jetstream.Conn, cluster string) eventing.Reader {
	t.Helper()

	return openStream(t, conn, cluster, "EVENTS")
}

// pull gives exactly n messages and fails if there are more.
func pull(t *testing.T, reader eventing.Reader, n int) []eventing.Message {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var messages []eventing.Message
	for len(messages) < n {
		if err := reader.Pull(ctx, n-len(messages), 64<<20, func(m eventing.Message) { messages = append(messages, m) }); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() != nil {
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

	if err := publisher.Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
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

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()

	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
