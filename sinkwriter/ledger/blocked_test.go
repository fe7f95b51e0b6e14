package ledger_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestAnEventIsParkedUntilItIsHandledOrItsLetterIsGone(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	letters := deadletter.NewStore(pool, "east")
	parked := ledger.NewBlocked(pool, "east")
	var events []ledger.BlockedEvent
	save := func(letters *deadletter.Store, function, id, subject string) {
		t.Helper()
		e := sinktest.NewEvent(id)
		e.SetSubject(subject)
		if err := letters.Save(t.Context(), deadletter.Letter{Function: function, Event: e, Code: 422}); err != nil {
			t.Fatal(err)
		}
		if function == "f" && letters != nil && subject != "" {
			events = append(events, ledger.BlockedEvent{Subject: subject, Source: e.Source(), ID: id})
		}
	}
	save(letters, "f", "handled", "a")
	save(letters, "f", "dropped", "a")
	save(letters, "f", "waits", "b")
	save(letters, "f", "has none", "")
	save(letters, "g", "another function's", "a")
	want := append([]ledger.BlockedEvent(nil), events...)
	save(deadletter.NewStore(pool, "west"), "f", "another cluster's", "a")

	check := func(what string, want ...ledger.BlockedEvent) {
		t.Helper()
		got, err := parked.List(t.Context(), "f")
		if err != nil {
			t.Fatal(err)
		}
		still, err := parked.Still(t.Context(), "f", events)
		if err != nil {
			t.Fatal(err)
		}
		wanted := map[ledger.BlockedEvent]bool{}
		for _, e := range want {
			wanted[e] = true
		}
		listed := map[ledger.BlockedEvent]bool{}
		for _, e := range got {
			listed[e] = true
		}
		if diff := cmp.Diff(wanted, listed); diff != "" {
			t.Errorf("%s: listed (-want +got)\n%s", what, diff)
		}
		asked := map[ledger.BlockedEvent]bool{}
		for _, e := range events {
			if still[ledger.BlockedEvent{Source: e.Source, ID: e.ID}] {
				asked[e] = true
			}
		}
		if diff := cmp.Diff(wanted, asked); diff != "" {
			t.Errorf("%s: still waiting (-want +got)\n%s", what, diff)
		}
	}
	check("at first", want...)

	// As a replay, another cluster, or a person who drops it does.
	if _, err := pool.Exec(t.Context(), `insert into tandem.ledger (writer, key, digest) values (1, tandem.key('f', $1, 'handled'), '')`, want[0].Source); err != nil {
		t.Fatal(err)
	}
	check("after it was handled", want[1:]...)
	if _, err := pool.Exec(t.Context(), `delete from tandem.dead_letter where id = 'dropped'`); err != nil {
		t.Fatal(err)
	}
	check("after it was dropped", want[2])
}
