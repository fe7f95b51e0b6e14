package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func (d *deployed) event(t *testing.T, source, id string, args ...string) ran {
	t.Helper()

	env := map[string]string{"DATABASE_URL": d.databaseURL, "NATS_URL": d.natsURL}
	return invoke(t, env, append([]string{"event", source, id}, args...)...)
}

func TestEverythingThatIsKnownAboutAnEventIsPrinted(t *testing.T) {
	t.Parallel()

	d := deploy(t, 50)
	find := func(got ran) eventFound {
		t.Helper()
		var f eventFound
		if err := json.Unmarshal([]byte(got.out), &f); err != nil || got.err != "" {
			t.Fatalf("%v: %+v", err, got)
		}
		return f
	}

	// The first flight with outputs: the function decides which flights have them.
	var whole eventFound
	id := ""
	for n := 1; len(whole.Outputs) == 0; n++ {
		id = fmt.Sprintf("flight-2001-%06d", n)
		whole = find(d.event(t, feed.FlightSource, id, "-o", "json"))
		if len(whole.Commits) != 1 || whole.Commits[0].Function != "flights" || whole.Commits[0].Cluster != "east" ||
			whole.Commits[0].Key != ledger.NewKey("flights", feed.FlightSource, id).String() {
			t.Fatalf("commits %+v", whole.Commits)
		}
		if len(whole.Messages) != 1 || whole.Messages[0].Sequence != uint64(n) || whole.Messages[0].Stream != "EVENTS" ||
			len(whole.Messages[0].Clusters) != 1 || whole.Messages[0].Clusters[0].State != "acknowledged" {
			t.Fatalf("messages %+v", whole.Messages)
		}
	}
	if o := whole.Outputs[0]; o.Stream != "OUTPUTS" || o.Sequence == 0 || o.Function != "flights" || o.Type == "" {
		t.Errorf("outputs %+v", whole.Outputs)
	}
	out := d.event(t, feed.FlightSource, id).ok(t)
	for _, want := range []string{"COMMITTED BY", "\neast ", " flights ", "\nEVENTS ", "acknowledged\n", "OUTPUTS "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// A dead letter of a cluster that rejected the event, and a divergence.
	e := (&lettersWorld{}).flights(t, 2)[1]
	letters := deadletter.NewStore(d.pool, "west")
	if err := letters.Save(t.Context(), deadletter.Letter{Function: "flights", Event: e, Code: 422, Reason: "delay: want a number", Attempts: 3}); err != nil {
		t.Fatal(err)
	}
	d.exec(t, `insert into tandem.divergence (function, version, source, id, lost_cluster, won_cluster, lost_digest, won_digest, wanted)
values ('flights', 'v1', '`+e.Source()+`', '`+e.ID()+`', 'west', 'east', 'a', 'b', '{}')`)
	got := d.event(t, e.Source(), e.ID(), "-o", "json")
	f := find(got)
	if got.code != 1 || len(f.Letters) != 1 || f.Letters[0].Verdict != deadletter.VerdictSickCluster || f.Letters[0].Blocks != "" || len(f.Divergences) != 1 {
		t.Errorf("exit code %d, %+v", got.code, f.Event)
	}
	got = d.event(t, e.Source(), e.ID())
	for _, want := range []string{"DEAD LETTER IN", "sick cluster", "delay: want a number", "DIVERGED IN"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}

	// An event that is dead everywhere blocks its subject, and with it later events.
	dead := e.Clone()
	dead.SetID("dead")
	if err := letters.Save(t.Context(), deadletter.Letter{Function: "flights", Event: dead, Code: 500, Reason: "panic"}); err != nil {
		t.Fatal(err)
	}
	if f = find(d.event(t, dead.Source(), "dead", "-o", "json")); len(f.Commits) != 0 || len(f.Letters) != 1 || f.Letters[0].Blocks != e.Subject() || e.Subject() == "" {
		t.Errorf("%+v, subject %q", f.Event, e.Subject())
	}
	if f = find(d.event(t, e.Source(), e.ID(), "-o", "json")); len(f.Blockers) != 1 || f.Blockers[0].ID != "dead" || f.Blockers[0].Cluster != "west" {
		t.Errorf("blockers %+v", f.Blockers)
	}
	stored := ledger.StoredEvent{Subject: e.Subject(), Source: e.Source(), ID: "waits", Stream: "EVENTS", Event: []byte("{}")}
	if _, err := ledger.NewBlocked(d.pool, "west").Store(t.Context(), "flights", []ledger.StoredEvent{stored}); err != nil {
		t.Fatal(err)
	}
	if f = find(d.event(t, e.Source(), "waits", "-o", "json")); len(f.Stored) != 1 || f.Stored[0].Cluster != "west" || f.Stored[0].Subject != e.Subject() {
		t.Errorf("stored %+v", f.Stored)
	}
	if got := d.event(t, e.Source(), "waits"); !strings.Contains(got.out, "STORED IN") {
		t.Errorf("no STORED IN in\n%s", got.out)
	}

	// Nothing about the event is stored, and the ledger has a horizon.
	d.exec(t, `insert into tandem.horizon (function, stream, epoch, floor) select function, stream, epoch, 11 from tandem.progress`)
	got = d.event(t, "/nowhere", "4711")
	for _, want := range []string{"not in the ledger", "note: stream EVENTS: not among the messages 1 to 50 of 1 to 50", "the ledger may have forgotten the event", "HORIZON OF"} {
		if got.code != 1 || !strings.Contains(got.out, want) {
			t.Errorf("exit code %d, no %q in\n%s", got.code, want, got.out)
		}
	}
	f = find(d.event(t, feed.FlightSource, "flight-2001-000010", "-o", "json"))
	if len(f.Messages) != 1 || !f.Messages[0].Clusters[0].Horizon {
		t.Errorf("%+v", f.Messages)
	}

	// Without the streams only the database is read.
	f = find(invoke(t, nil, "event", feed.FlightSource, id, "--database-url", d.databaseURL, "-o", "json"))
	if len(f.Commits) != 1 || len(f.Messages) != 0 || !strings.Contains(strings.Join(f.Notes, ""), "the streams were not read") {
		t.Errorf("%+v", f)
	}
	if f = find(d.event(t, feed.FlightSource, "flight-2001-000001", "--search", "5", "-o", "json")); len(f.Messages) != 0 || len(f.Commits) != 1 {
		t.Errorf("a search of 5 messages of 50 found %+v", f.Messages)
	}
}

func TestAWrongInquiryIsExplained(t *testing.T) {
	t.Parallel()

	for want, args := range map[string][]string{
		"want SOURCE and ID: see tandem event --help": {"/shop"},
		"neither of them empty":                       {"", "1"},
		"invalid argument":                            {"a", "b", "--search", "many"},
		"set --database-url or DATABASE_URL":          {"a", "b"},
	} {
		invoke(t, nil, append([]string{"event"}, args...)...).fails(t, 2, want)
	}
}
