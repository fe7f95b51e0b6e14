package streamtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
)

func repeats(t *testing.T, server Server) {
	first, second := server.Connect(t), server.Connect(t)
	events := newEvents(1, 100)
	publish(t, first, events...)
	publish(t, second, events...)
	other := newEvents(1, 1)[0]
	other.SetSource("/other") // the same id
	publish(t, second, other)

	reader := open(t, first, "east")
	var got []string
	for seen := map[string]bool{}; !seen["/other test-000001"]; {
		for _, id := range identities(pull(t, reader, 1)) {
			if !seen[id] {
				seen[id], got = true, append(got, id)
			}
		}
	}
	var want []string
	for _, e := range append(events, other) {
		want = append(want, e.Source()+" "+e.ID())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identities, each where it is first (-want +got):\n%s", diff)
	}
}

func concurrentPublish(t *testing.T, server Server) {
	const publishers, each = 20, 200
	p := server.Connect(t)
	publisher := p.Publisher(t)
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			if err := publisher.Publish(t.Context(), newEvents(i*each, each)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, id := range identities(pull(t, open(t, p, "east"), publishers*each)) {
		ids[id] = true
	}
	if len(ids) != publishers*each {
		t.Errorf("%d distinct events, want %d", len(ids), publishers*each)
	}
}

func publishErrors(t *testing.T, server Server) {
	p := server.Connect(t)
	publisher := p.Publisher(t)
	large := newEvents(1, 1)[0]
	large.DataEncoded = make([]byte, 64<<20)
	if err := publisher.Publish(t.Context(), []event.Event{large}); !errors.Is(err, eventing.ErrTooLarge) {
		t.Fatalf("an event that never fits: %v, want ErrTooLarge", err)
	}
	if err := publisher.Publish(t.Context(), []event.Event{event.New()}); err == nil {
		t.Fatal("an event without attributes was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := publisher.Publish(ctx, newEvents(2, 10)); !errors.Is(err, context.Canceled) {
		t.Fatalf("the context had ended: %v", err)
	}
	publish(t, p, newEvents(100, 1)...)
	server.Stop()
	if err := publisher.Publish(t.Context(), newEvents(101, 1)); err == nil {
		t.Fatal("an event was stored by a server that has gone")
	}
	server.Restart(t)
	eventually(t, "it is stored at last", func() error { return publisher.Publish(t.Context(), newEvents(101, 1)) })

	last := map[string]bool{}
	reader := open(t, p, "east")
	for !last["/test test-000101"] {
		for _, id := range identities(pull(t, reader, 1)) {
			last[id] = true
		}
	}
	if !last["/test test-000100"] {
		t.Errorf("events are %s", cmp.Diff(nil, last))
	}
}
