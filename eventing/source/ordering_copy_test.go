package source_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

// repeating delivers message 1 a second time when once again is closed, as a stream
// does that did not receive its acknowledgement, and closes acknowledged when that copy
// is acknowledged.
type repeating struct {
	eventing.Stream
	again, acknowledged chan struct{}
}

func (s repeating) Open(ctx context.Context, cfg eventing.OpenConfig) (eventing.Reader, error) {
	reader, err := s.Stream.Open(ctx, cfg)
	return repeater{reader, s}, err
}

type repeater struct {
	eventing.Reader
	stream repeating
}

func (r repeater) Pull(ctx context.Context, n, bytes int, receive func(eventing.Message)) error {
	return r.Reader.Pull(ctx, n, bytes, func(m eventing.Message) {
		receive(m)
		if m.Sequence() == 1 {
			go func() {
				select {
				case <-r.stream.again:
					receive(&copied{Message: m, acknowledged: r.stream.acknowledged})
				case <-ctx.Done():
				}
			}()
		}
	})
}

type copied struct {
	eventing.Message
	once         sync.Once
	acknowledged chan struct{}
}

func (c *copied) Ack() error {
	c.once.Do(func() { close(c.acknowledged) })
	return c.Message.Ack()
}

func TestACopyOfAnAcknowledgedMessageBlocksNoSubject(t *testing.T) {
	t.Parallel()

	server, p := natstest.Start(t), &progress{}
	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"test-000001", "test-000002"} {
		e := eventtest.NewEvent(id)
		e.SetSubject("hot")
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
	}
	var back, second atomic.Bool
	f := newFunction(t)
	f.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000002" && !back.Load() {
			second.Store(true)
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	inner, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	stream := repeating{inner, make(chan struct{}), make(chan struct{})}
	j := newJournal(0)
	source, err := source.New(eventing.StreamList{stream}, eventtest.NewSender(t, f.url(), f.url()+"/dead-letters"), p, source.Config{
		Function: "flights", Ordered: true, Blocked: verdictsOf{"east", j}, Ledger: j, SaveInterval: saveInterval,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventtest.Eventually(t, "the second message is attempted", second.Load)
	close(stream.again)
	select {
	case <-stream.acknowledged:
	case <-time.After(time.Minute):
		t.Error("the copy of an acknowledged message is not acknowledged within a minute")
	}
	back.Store(true)
	eventtest.Eventually(t, "the second message is acknowledged", func() bool { return p.floor("EVENTS") == 3 })
	if n := f.tried("/ test-000001"); n != 1 {
		t.Errorf("the first message was delivered %d times, want once", n)
	}
}
