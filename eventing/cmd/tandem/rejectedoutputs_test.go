package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

func TestRejectedOutputsAreListedShownReplayedAndDropped(t *testing.T) {
	t.Parallel()

	w := newLettersWorld(t)
	run := func(args ...string) ran {
		return invoke(t, map[string]string{"DATABASE_URL": w.url}, append([]string{"rejected-outputs"}, args...)...)
	}
	if out := run("list", "--check").ok(t); out != "no rejected outputs\n" {
		t.Errorf("printed\n%s", out)
	}
	if _, err := w.pool.Exec(t.Context(), `insert into tandem.outbox (due, events) values (now() - interval '1 second', '[
		{"specversion":"1.0","id":"o-1","source":"/tandem/orders","type":"t","causationid":"e-1","data":{"n":1}},
		{"specversion":"1.0","id":"o-2","source":"/tandem/orders","type":"t","causationid":"e-2"},
		{"specversion":"1.0","id":"s-1","source":"/tandem/stock","type":"t","causationid":"e-2"}]')`); err != nil {
		t.Fatal(err)
	}
	relay := func(reason error) []string {
		t.Helper()
		var ids []string
		_, _, err := sinkwriter.NewOutbox(w.pool).Relay(t.Context(), func(_ context.Context, events []event.Event) error {
			reasons := make([]error, len(events))
			for i, e := range events {
				reasons[i] = reason
				ids = append(ids, e.ID())
			}
			return contract.Published(reasons)
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids
	}
	relay(&contract.Rejection{Code: 413, Err: errors.New("refused with 413: at most 1000 bytes")})
	if _, err := w.pool.Exec(t.Context(), `update tandem.rejected_output set first_at = '2001-01-01 00:00Z', last_at = '2001-01-02 00:00Z'`); err != nil {
		t.Fatal(err)
	}

	run("list", "--check").fails(t, 1, "")
	want := `FUNCTION  CODE  LAST                  ID   TYPE  CAUSED BY  REASON
orders    413   2001-01-02T00:00:00Z  o-1  t     e-1        refused with 413: at most 1000 bytes
orders    413   2001-01-02T00:00:00Z  o-2  t     e-2        refused with 413: at most 1000 bytes
`
	if diff := cmp.Diff(want, run("list", "--function", "orders").ok(t)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if out := run("list", "--limit", "1").ok(t); !strings.HasSuffix(out, "… the first 1; see more with --limit\n") {
		t.Errorf("printed\n%s", out)
	}
	out := run("show", "--caused-by", "e-1").ok(t)
	for _, want := range []string{"orders  o-1\n  rejected at 2001-01-02T00:00:00Z with 413: refused with 413", `"causationid": "e-1"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var shown shownOutput
	if err := json.Unmarshal([]byte(run("show", "-o", "json", "--id", "s-1").ok(t)), &shown); err != nil || shown.Source != "/tandem/stock" || len(shown.Event) == 0 {
		t.Errorf("shown %+v, %v", shown, err)
	}

	if out = run("drop", "--function", "stock").ok(t); out != "dropped  stock  s-1\n1 dropped\n" {
		t.Errorf("printed\n%s", out)
	}
	if out = run("replay", "-o", "json", "--id", "o-2").ok(t); out != `{"result":"replayed","source":"/tandem/orders","id":"o-2"}`+"\n" {
		t.Errorf("printed\n%s", out)
	}
	if out = run("replay", "--all").ok(t); out != "replayed orders  o-1\n1 replayed\n" {
		t.Errorf("printed\n%s", out)
	}
	if got := relay(nil); len(got) != 2 {
		t.Errorf("the relay published %v, want o-1 and o-2", got)
	}
	run("list", "--check").ok(t)
}

func TestAWrongRejectedOutputsCommandIsExplained(t *testing.T) {
	t.Parallel()

	for args, want := range map[string]string{
		"drop":                "which outputs to drop: want --function",
		"replay":              "which outputs to replay",
		"drop --all --id 1":   "--all and another flag",
		"list --limit 0":      "--limit 0: want at least 1",
		"list --function A/B": `--function "A/B": want the name of a function`,
		"list x":              `argument "x"`,
	} {
		invoke(t, nil, append([]string{"rejected-outputs"}, strings.Fields(args)...)...).fails(t, 2, want)
	}
	invoke(t, nil, "rejected-outputs", "list", "--database-url", pgtest.URL(t)).fails(t, 2, "run tandem migrate first")
}
