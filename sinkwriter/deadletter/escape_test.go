package deadletter_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestADeadLetterWhoseDataPostgreSQLCannotLookIntoIsStoredAndHoldsUpNothingElse(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	letters := deadletter.NewStore(pool, "east")
	want := map[ledger.BlockedEvent]bool{}
	data := map[string]string{
		"nul":                `{"a":"\u0000"}`,
		"nul in a name":      `{"\u0000":1}`,
		"nul after a pair":   `"\ud83d\ude00\u0000"`,
		"half a pair":        `"\ud800"`,
		"half a pair, later": `["\uDC00", 1]`,
		"two halves":         `"\ud800\ud800"`,
		"half, then n":       `"\ud800\n"`,
		"no escape of nul":   `"\\u0000"`,
		"a pair":             `"\uD83D\uDE00 \u00e9"`,
		"plain":              `{"n":1}`,
	}
	for id, text := range data {
		e := sinktest.NewEvent(id)
		e.SetSubject("s " + id)
		e.SetDataContentType("application/json")
		e.DataEncoded = []byte(text)
		if err := letters.Save(t.Context(), deadletter.Letter{Function: "f", Event: e, Code: 422}); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		want[ledger.BlockedEvent{Subject: "s " + id, Source: e.Source(), ID: id}] = true
		if got := sinktest.Query[string](t, pool, `select event ->> 'subject' from tandem.dead_letter where id = $1`, id); got != "s "+id {
			t.Errorf("%s: subject %q", id, got)
		}
		stored := sinktest.Query[[]byte](t, pool, `select event from tandem.dead_letter where id = $1`, id)
		read, err := cloudevent.ReadJSON(stored, cloudevent.Rules{})
		if err != nil || string(read.Data()) != text || read.DataContentType() != e.DataContentType() {
			t.Errorf("%s: stored as %s, %v", id, stored, err)
		}
	}
	for _, id := range []string{"no escape of nul", "a pair", "plain"} {
		if sinktest.Query[bool](t, pool, `select event -> 'data' is null from tandem.dead_letter where id = $1`, id) {
			t.Errorf("%s: it is in base64", id)
		}
	}
	// Earlier versions stored the letter in this form.
	sinktest.Execute(t, pool, `insert into tandem.dead_letter (function, source, id, cluster, type, code, reason, event)
		values ('f', '/test', 'old', 'east', 't', 422, '', '{"specversion":"1.0","id":"old","source":"/test","type":"t","data":"\u0000","subject":"s old"}')`)
	want[ledger.BlockedEvent{Subject: "s old", Source: "/test", ID: "old"}] = true

	list, err := ledger.NewBlocked(pool, "east").List(t.Context(), "f")
	if err != nil {
		t.Fatal(err)
	}
	got := map[ledger.BlockedEvent]bool{}
	for _, e := range list {
		got[e] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("blocked subjects (-want +got):\n%s", diff)
	}
}
