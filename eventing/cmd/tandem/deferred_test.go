package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// deferEvents defers the first n flights in clusters.
func (w *lettersWorld) deferEvents(t *testing.T, n int, clusters ...string) {
	t.Helper()

	for _, cluster := range clusters {
		for i, e := range w.flights(t, n) {
			text, err := cloudevent.AppendJSON(nil, e)
			if err != nil {
				t.Fatal(err)
			}
			row := deferred.Event{
				Key: ledger.NewKey("flights", e.Source(), e.ID()), Source: e.Source(), ID: e.ID(), Type: e.Type(), Stream: "EVENTS", Sequence: uint64(i + 1),
				Arrived: time.Now(), Version: "1", Fingerprint: "42703 flights.gate", Reason: "column gate is missing", Attempts: 2, Proven: true, Event: text,
				Held: i > 0,
			}
			if _, err := deferred.NewStore(w.pool, cluster).Defer(t.Context(), "flights", []deferred.Event{row}, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDeferredEventsAreShownAndChanged(t *testing.T) {
	t.Parallel()

	w := newLettersWorld(t)
	tool := func(args ...string) ran {
		return invoke(t, map[string]string{"DATABASE_URL": w.url}, args...)
	}
	if out := tool("deferred", "list", "--check").ok(t); out != "no deferred events\n" {
		t.Errorf("printed\n%s", out)
	}
	w.deferEvents(t, 2, "east", "west")
	tool("deferred", "list", "--check", "--missing", "FLIGHTS.gate").fails(t, 1, "")
	out := tool("deferred", "list").ok(t)
	for _, want := range []string{"MISSING", "42703 flights.gate  flights   1        east,west  4", "held"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	id := w.flights(t, 1)[0].ID()
	if out = tool("deferred", "show", "--id", id).ok(t); !strings.Contains(out, "east: column gate is missing") || !strings.Contains(out, `"id": "`+id+`"`) {
		t.Errorf("printed\n%s", out)
	}
	var shown struct {
		Rows  []struct{ Cluster, Stream string }
		Event struct{ ID string }
	}
	if err := json.Unmarshal([]byte(tool("deferred", "show", "--id", id, "-o", "json").ok(t)), &shown); err != nil || len(shown.Rows) != 2 || shown.Rows[1].Cluster != "west" || shown.Event.ID != id {
		t.Errorf("shown %+v, %v", shown, err)
	}
	event := tool("event", feed.FlightSource, id, "--search", "0")
	event.fails(t, 1, "")
	if !strings.Contains(event.out, "DEFERRED IN") || !strings.Contains(event.out, "42703 flights.gate") {
		t.Errorf("printed\n%s", event.out)
	}
	tool("deferred", "run").fails(t, 2, "which events to run")
	tool("deferred", "drop", "--all", "--id", id).fails(t, 2, "want one of them")
	if out = tool("deferred", "run", "--all").ok(t); !strings.HasSuffix(out, "2 scheduled\n") {
		t.Errorf("printed\n%s", out)
	}
	if n := w.count(t, "select count(*) from tandem.deferred_event where next_run_at <= now()"); n != 4 {
		t.Errorf("%d rows are run, want 4", n)
	}
	if out = tool("deferred", "drop", "--id", id, "-o", "json").ok(t); out != `{"result":"dropped","function":"flights","source":"`+feed.FlightSource+`","id":"`+id+`"}`+"\n" {
		t.Errorf("printed\n%s", out)
	}
	if n := w.count(t, "select count(*) from tandem.deferred_event"); n != 2 {
		t.Errorf("%d rows are left, want 2", n)
	}
	if out := tool("deferred").ok(t); !strings.Contains(out, "never expire") {
		t.Errorf("the help is\n%s", out)
	}
}
