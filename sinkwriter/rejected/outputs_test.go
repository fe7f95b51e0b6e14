package rejected_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/rejected"
)

func TestOutputsThatPostgreSQLCannotLookIntoAreListedAndReplayed(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	offer := sinktest.Order("o-1", 1)
	const data = `{"a":"\u0000"}`
	offer.Effects.Outputs[0].Data = json.RawMessage(data)
	if _, err := w.Commit(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	box, r := sinkwriter.NewOutbox(pool), rejected.New(pool)
	for _, reason := range []error{&contract.Rejection{Code: 400, Err: errors.New("no")}, nil} {
		if got := sinktest.Query[string](t, pool, `select event ->> 'causationid' from tandem.outbox_event`); got != "o-1" {
			t.Errorf("the output of %s is in the outbox", got)
		}
		sinktest.Execute(t, pool, `update tandem.outbox set due = now()`)
		if _, _, err := box.Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			if len(events) != 1 || string(events[0].Data()) != data || events[0].DataContentType() != "application/json" {
				t.Errorf("published %v", events)
			}
			return contract.Published([]error{reason})
		}); err != nil {
			t.Fatal(err)
		}
		if reason == nil {
			return
		}
		list, err := r.List(t.Context(), rejected.Filter{CausedBy: "o-1"}, nil, 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		if err := r.Replay(t.Context(), list[0]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRejectedOutputsAreListedReplayedAndDropped(t *testing.T) {
	t.Parallel()

	const outputs = 5
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for n := range outputs {
		if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", n), 1)); err != nil {
			t.Fatal(err)
		}
	}
	sinktest.Execute(t, pool, `update tandem.outbox set due = now()`)
	box := sinkwriter.NewOutbox(pool)
	relay := func(code int, wantPublished, wantRejected int) {
		t.Helper()
		published, rejected, err := box.Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			reasons := make([]error, len(events))
			for i := range reasons {
				if code != 0 {
					reasons[i] = &contract.Rejection{Code: code, Err: fmt.Errorf("%w: %s", errors.New("Refused"), events[i].Subject())}
				}
			}
			return contract.Published(reasons)
		})
		if published != wantPublished || rejected != wantRejected || err != nil {
			t.Fatalf("published %d, rejected %d, %v, want %d and %d", published, rejected, err, wantPublished, wantRejected)
		}
	}
	relay(413, 0, outputs)
	r := rejected.New(pool)
	count := func(want int64) {
		t.Helper()
		if n, err := r.Count(t.Context()); n != want || err != nil {
			t.Fatalf("%d outputs are rejected, %v, want %d", n, err, want)
		}
	}
	count(outputs)
	if n, err := box.Backlog(t.Context()); n != 0 || err != nil {
		t.Errorf("%d are in the outbox, %v", n, err)
	}

	for _, tt := range []struct {
		name   string
		filter rejected.Filter
		want   string
	}{
		{"all", rejected.Filter{}, "o-0 o-1 o-2 o-3 o-4"},
		{"source", rejected.Filter{Source: "/tandem/orders"}, "o-0 o-1 o-2 o-3 o-4"},
		{"another source", rejected.Filter{Source: "/tandem/x"}, ""},
		{"event", rejected.Filter{CausedBy: "o-3"}, "o-3"},
		{"type", rejected.Filter{Type: "com.example.order.stored", CausedBy: "o-1"}, "o-1"},
		{"code", rejected.Filter{Code: 400}, ""},
		{"reason", rejected.Filter{Reason: "refused: O-2"}, "o-2"},
		{"since", rejected.Filter{Since: time.Now().Add(time.Hour)}, ""},
		{"until", rejected.Filter{Until: time.Now().Add(-time.Hour)}, ""},
	} {
		var got []string
		var after *rejected.Output
		for { // two at a time
			list, err := r.List(t.Context(), tt.filter, after, 2)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			for _, o := range list {
				got = append(got, *o.CausedBy)
				after = &o
			}
			if len(list) < 2 {
				break
			}
		}
		// The events' ids determine the outputs' ids, and so their order.
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}

	list, err := r.List(t.Context(), rejected.Filter{}, nil, outputs)
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Read(t.Context(), list[0].Source, list[0].ID)
	if err != nil || !strings.Contains(string(text), `"subject":"o-0"`) {
		t.Errorf("read %s, %v", text, err)
	}
	if err := r.Drop(t.Context(), list[0]); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(t.Context(), list[0].Source, list[0].ID); !errors.Is(err, rejected.ErrNotFound) {
		t.Errorf("dropped: %v", err)
	}
	for _, o := range list[1:] {
		if err := r.Replay(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	count(0)
	relay(422, 0, outputs-1) // again
	count(outputs - 1)
	if err := r.Replay(t.Context(), list[1]); !errors.Is(err, rejected.ErrNotFound) {
		t.Errorf("one that was rejected again since: %v", err)
	}
	if list, err = r.List(t.Context(), rejected.Filter{Code: 422}, nil, outputs); err != nil || len(list) != outputs-1 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, o := range list {
		if err := r.Replay(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	relay(0, outputs-1, 0)
	count(0)
}
