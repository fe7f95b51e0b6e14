package streamtest

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

func repeats(t *testing.T, server Server) {
	first, second := server.Connect(t), server.Connect(t)
	events := newEvents(1, 100)
	publish(t, first, events...)
	publish(t, second, events...)
	other := newEvents(1, 1)[0]
	other.SetSource("/other") // with the same id
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
	if err := publisher.Publish(t.Context(), []event.Event{event.New()}); !errors.As(err, new(*eventing.Rejection)) {
		t.Fatalf("an event without attributes: %v, want a Rejection", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := publisher.Publish(ctx, newEvents(2, 10)); !errors.Is(err, context.Canceled) || errors.As(err, new(*eventing.Rejection)) {
		t.Fatalf("the context had ended: %v", err)
	}
	publish(t, p, newEvents(100, 1)...)
	server.Stop()
	if err := publisher.Publish(t.Context(), newEvents(101, 1)); err == nil || errors.As(err, new(*eventing.Rejection)) {
		t.Fatalf("an event for a server that has gone: %v, want an error that is no Rejection", err)
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

func publishPartly(t *testing.T, server Server) {
	const n, invalid, large = 1200, 3, 700
	p := server.Connect(t)
	publisher := p.Publisher(t)
	events := newEvents(1, n)
	events[invalid] = event.New()
	events[large].DataEncoded = make([]byte, 64<<20)
	err := publisher.Publish(t.Context(), events)
	var partly *contract.PublishError
	if !errors.As(err, &partly) || len(partly.Reasons) != n {
		t.Fatalf("error %v, want a PublishError with a reason for each event", err)
	}
	for i, reason := range partly.Reasons {
		if bad := i == invalid || i == large; bad != (reason != nil) || bad != errors.As(reason, new(*eventing.Rejection)) {
			t.Errorf("event %d: reason %v", i, reason)
		}
		if tooLarge := errors.Is(reason, eventing.ErrTooLarge); tooLarge != (i == large) {
			t.Errorf("event %d: too large: %t", i, tooLarge)
		}
	}
	got := map[string]bool{}
	reader := open(t, p, "east")
	for range n - 2 {
		for _, id := range identities(pull(t, reader, 1)) {
			if got[id] {
				t.Errorf("%s is stored twice", id)
			}
			got[id] = true
		}
	}
	for i, e := range events {
		if stored := got[e.Source()+" "+e.ID()]; stored != (i != invalid && i != large) {
			t.Errorf("event %d: stored: %t", i, stored)
		}
	}
}
