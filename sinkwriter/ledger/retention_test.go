package ledger_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestTheLedgerForgetsOnlyWhatEveryClusterHasAcknowledged(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	// Messages 1 to 30, ten a day: committed 12, 11 and 10 days ago.
	for i := range 30 {
		if _, err := east.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i+1), 1)); err != nil {
			t.Fatal(err)
		}
	}
	exec(`update tandem.ledger l set committed_at = now() - make_interval(days => 12 - (n - 1) / 10)
		from generate_series(1, 30) n where l.key = tandem.key('orders', '/test', 'o-' || n)`)
	// What was sampled then: at the end of each day, how far the foremost was.
	exec(`insert into tandem.floor_sample (function, stream, epoch, taken_at, head)
		select 'orders', 'EVENTS', 'e1', now() - make_interval(days => 12 - d, hours => -1), 10 * d + 11 from generate_series(0, 2) d`)

	progress := map[string]*ledger.Checkpoints{"east": ledger.NewCheckpoints(pool, "east"), "west": ledger.NewCheckpoints(pool, "west")}
	save := func(cluster string, floor, head uint64) {
		t.Helper()
		last, _, err := progress[cluster].Load(t.Context(), "orders", "EVENTS")
		if err != nil {
			t.Fatal(err)
		}
		row := ledger.CheckpointUpdate{Epoch: "e1", Floor: floor, Head: head, Hedge: "0"}
		if _, ok, err := progress[cluster].Save(t.Context(), "orders", "EVENTS", row, last); err != nil || !ok {
			t.Fatalf("saved %t, %v", ok, err)
		}
	}
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Pause: -1, Pages: 1})
	if err != nil {
		t.Fatal(err)
	}
	sweep := func(wantForgotten int64, wantHorizon uint64) {
		t.Helper()
		forgotten, err := retention.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		horizon, err := progress["west"].Horizon(t.Context(), "orders", "EVENTS", "e1")
		if err != nil {
			t.Fatal(err)
		}
		if forgotten != wantForgotten || horizon != wantHorizon {
			t.Errorf("forgot %d, horizon %d, want %d and %d", forgotten, horizon, wantForgotten, wantHorizon)
		}
	}

	// West has been stuck at message 5 all the time: nothing may go.
	save("east", 31, 31)
	save("west", 5, 6)
	sweep(0, 0)

	// West has caught up to message 15: the first day goes, but for the event
	// that still has a dead letter, and the one that waits behind it.
	save("west", 15, 16)
	if err := deadletter.NewStore(pool, "west").Save(t.Context(), deadletter.Letter{Function: "orders", Event: sinktest.NewEvent("o-3"), Code: 422}); err != nil {
		t.Fatal(err)
	}
	waiting := ledger.StoredEvent{Subject: "s", Source: "/test", ID: "o-4", Stream: "EVENTS", Event: []byte("{}")}
	if _, err := ledger.NewBlocked(pool, "west").Store(t.Context(), "orders", []ledger.StoredEvent{waiting}); err != nil {
		t.Fatal(err)
	}
	sweep(8, 11)
	if got := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger where key in (tandem.key('orders', '/test', 'o-3'), tandem.key('orders', '/test', 'o-4'))`); got != 2 {
		t.Error("an event with a dead letter was forgotten, or the one behind it")
	}

	// All caught up.
	save("west", 31, 31)
	sweep(20, 31)

	// Another making of the stream has no horizon.
	if horizon, err := progress["west"].Horizon(t.Context(), "orders", "EVENTS", "e2"); err != nil || horizon != 0 {
		t.Errorf("horizon of another epoch: %d, %v", horizon, err)
	}
}

func TestTheLedgerOfPlainWritersForgetsByAgeAlone(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for i := range 4 {
		if _, err := east.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), `update tandem.ledger set committed_at = now() - interval '2 hours' where key = tandem.key('orders', '/test', 'o-0')`); err != nil {
		t.Fatal(err)
	}
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Keep: time.Hour, Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := retention.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
}
