package source_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
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

// forgetful is a stream that ignores the first acknowledgement of some messages, and
// loses one message before delivery, as when its leader ends.
type forgetful struct {
	eventing.Stream
	opened, deaf, lossy atomic.Int64
}

func (s *forgetful) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	s.opened.Add(1)
	reader, err := s.Stream.Open(ctx, cfg)
	return forgetfulReader{reader, s}, err
}

type forgetfulReader struct {
	eventing.Reader
	stream *forgetful
}

func (r forgetfulReader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	return r.Reader.Pull(ctx, n, bytes, func(m eventing.Message) {
		if m.Sequence() == 7 && r.stream.lossy.Add(1) == 1 {
			return
		}
		receive(forgetfulMessage{m, r.stream})
	})
}

type forgetfulMessage struct {
	eventing.Message
	stream *forgetful
}

func (m forgetfulMessage) Ack() error {
	if m.Sequence() < 4 && m.stream.deaf.Add(1) <= 3 {
		return nil
	}
	return m.Message.Ack()
}

func TestWhatIsLostOnTheWayComesAgainSoon(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 20)
	inner, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	stream := &forgetful{Stream: inner}
	f := newFunction(t)
	hold := make(chan struct{})
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000020" { // a slow event is not lost
			<-hold
		}
		return http.StatusNoContent
	})
	p := &progress{}
	logger, lines := eventtest.Logger()
	source, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()), p, source.Config{
		Function: "flights", SaveInterval: 20 * time.Millisecond, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventtest.Eventually(t, "all that is done is acknowledged", func() bool { return p.floor("EVENTS") == 20 })
	losses := lossesIn(lines())
	if losses == 0 || stream.opened.Load() < 2 {
		t.Errorf("%d losses were seen, and the stream was opened %d times", losses, stream.opened.Load())
	}
	time.Sleep(time.Second) // many looks
	if got := lossesIn(lines()); got != losses {
		t.Errorf("%d more losses, of a message that is at work", got-losses)
	}
	close(hold)
	eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == 21 })
}

// lossesIn returns how often a log reports lost messages. A stream that is late is opened again
// too.
func lossesIn(lines []string) (n int) {
	for _, line := range lines {
		if strings.Contains(line, "messages were lost; ") {
			n++
		}
	}
	return n
}

func TestTheHorizonOfAMirrorIsThatOfItsOrigin(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	eventtest.Publish(t, server, "EVENTS", 1, 10)
	js := natstest.JetStream(t, server.URL())
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "COPY", Mirror: &natsjs.StreamSource{Name: "EVENTS"}}); err != nil {
		t.Fatal(err)
	}
	f := newFunction(t)
	p := &progress{}
	startSourceOf(t, server, f.url(), &ofOrigin{progress: p}, "COPY")
	f.waitFor(t, 7)
	eventtest.Eventually(t, "progress is saved", func() bool { return p.floor("EVENTS") == 11 })
	if n := f.count(); n != 7 {
		t.Errorf("%d events were delivered, want those that the ledger has not forgotten", n)
	}
}

// ofOrigin has a horizon for the origin.
type ofOrigin struct{ *progress }

func (o *ofOrigin) Horizon(_ context.Context, _, stream, _ string) (uint64, error) {
	if stream == "EVENTS" {
		return 4, nil
	}
	return 0, nil
}

// hesitant is a stream that delivers nothing until its position was read many times.
type hesitant struct {
	eventing.Stream
	asked atomic.Int64
}

func (s *hesitant) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	reader, err := s.Stream.Open(ctx, cfg)
	return hesitantReader{reader, s}, err
}

type hesitantReader struct {
	eventing.Reader
	stream *hesitant
}

func (r hesitantReader) Position(ctx context.Context) (eventing.Position, error) {
	r.stream.asked.Add(1)
	return r.Reader.Position(ctx)
}

func (r hesitantReader) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	for r.stream.asked.Load() < 50 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	return r.Reader.Pull(ctx, n, bytes, receive)
}

func TestWhatIsLostAtTheStartIsNotedThere(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		stream func(eventing.Stream) eventing.Stream
		lost   bool
	}{
		"not pulled yet": {stream: func(inner eventing.Stream) eventing.Stream { return &hesitant{Stream: inner} }},
		"lost": {stream: func(inner eventing.Stream) eventing.Stream {
			s := &forgetful{Stream: inner}
			s.deaf.Store(3) // receives every acknowledgement
			return s
		}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			publishSubjects(t, server, 1, 41)
			f := newFunction(t)
			f.answer(func(http.ResponseWriter, *http.Request, event.Event) int { return http.StatusServiceUnavailable })
			j, p := newJournal(0), &progress{}
			before := startOrdered(t, server, j, "east", f.url(), p, source.Config{})
			eventtest.Eventually(t, "messages are delivered", func() bool { return f.tried("/ test-000001") > 0 })
			before.kill()

			f.answer(nil)
			inner, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
			if err != nil {
				t.Fatal(err)
			}
			logger, lines := eventtest.Logger()
			source, err := source.New(eventing.StreamList{tt.stream(inner)}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), p, source.Config{
				Function: "flights", Ordered: true, Blocked: verdictsOf{"east", j}, Ledger: j, SaveInterval: saveInterval, Logger: logger,
			})
			if err != nil {
				t.Fatal(err)
			}
			run(t, source)
			eventtest.Eventually(t, "all is done", func() bool { return p.floor("EVENTS") == 41 })
			if n := lossesIn(lines()); n > 0 != tt.lost {
				t.Errorf("%d losses were seen, want any: %t", n, tt.lost)
			}
		})
	}
}
