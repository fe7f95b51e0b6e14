package ledger_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

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
	// The samples of that time: at the end of each day, the head of the foremost
	// cluster.
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

	// West has been stuck at message 5 all the time: nothing may be deleted.
	save("east", 31, 31)
	save("west", 5, 6)
	sweep(0, 0)

	// West has caught up to message 15: the first day is deleted, except the
	// event that still has a dead letter, and the one that waits behind it.
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

	// All have caught up.
	save("west", 31, 31)
	sweep(20, 31)

	// Another incarnation of the stream has no horizon.
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

// commitAged commits events of a function and ages each: ages maps its id to the time since
// its commit.
func commitAged(t *testing.T, w *sinkwriter.Writer, pool *pgxpool.Pool, function string, ages map[string]time.Duration) {
	t.Helper()
	for id, age := range ages {
		o := sinktest.Order(id, 1)
		o.Function = function
		if r, err := w.Commit(t.Context(), o); err != nil || !r.Won {
			t.Fatalf("%s: %+v, %v", id, r, err)
		}
		sinktest.Execute(t, pool, `update tandem.ledger set committed_at = now() - $3::interval where key = tandem.key($1, '/test', $2)`, function, id, age)
	}
}

// remembered returns the ids of a function's events that are in the ledger.
func remembered(t *testing.T, pool *pgxpool.Pool, function string, ages map[string]time.Duration) []string {
	t.Helper()
	ids := slices.Sorted(maps.Keys(ages))
	return slices.DeleteFunc(ids, func(id string) bool {
		return sinktest.Query[int](t, pool, `select count(*) from tandem.ledger where key = tandem.key($1, '/test', $2)`, function, id) == 0
	})
}

func sweep(t *testing.T, pool *pgxpool.Pool, config ledger.RetentionConfig) {
	t.Helper()
	config.Pause = -1
	retention, err := ledger.NewRetention(pool, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := retention.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantRemembered(t *testing.T, pool *pgxpool.Pool, function string, ages map[string]time.Duration, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, remembered(t, pool, function, ages)); diff != "" {
		t.Errorf("function %s remembers (-want +got):\n%s", function, diff)
	}
}

const day = 24 * time.Hour

func TestASourceDecidesOnlyForItsOwnFunction(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	ages := map[string]time.Duration{"0": 100 * day, "1": 40 * day, "2": 10 * day, "3": 5 * day, "4": 2 * time.Hour, "5": 30 * time.Minute}
	for _, function := range []string{"staging", "orders", "archive", "unknown", "sourceless"} {
		commitAged(t, east, pool, function, ages)
	}
	// Everything is acknowledged, all the time.
	sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, head)
		select c, f, 'EVENTS', 'e1', 9, 9 from unnest('{staging,orders,archive,unknown}'::text[]) f, unnest('{east,west}'::text[]) c;
		insert into tandem.floor_sample (function, stream, epoch, taken_at, head)
		select f, 'EVENTS', 'e1', at, 9 from unnest('{staging,orders,archive,unknown}'::text[]) f, generate_series(now() - interval '110 days', now(), interval '30 minutes') at`)
	for function, keep := range map[string]time.Duration{"archive": 30 * day, "orders": 7 * day, "staging": time.Hour} {
		sweep(t, pool, ledger.RetentionConfig{Cluster: "east", Function: function, Keep: keep})
		sweep(t, pool, ledger.RetentionConfig{Cluster: "west", Function: function, Keep: keep})
	}
	sweep(t, pool, ledger.RetentionConfig{Cluster: "east", Function: "staging", Keep: time.Hour})
	wantRemembered(t, pool, "staging", ages, "5")
	wantRemembered(t, pool, "orders", ages, "3", "4", "5")
	wantRemembered(t, pool, "archive", ages, "2", "3", "4", "5")
	wantRemembered(t, pool, "unknown", ages, "1", "2", "3", "4", "5")
	wantRemembered(t, pool, "sourceless", ages, "3", "4", "5")

	// If two clusters of a function have settings, the longer one counts.
	sweep(t, pool, ledger.RetentionConfig{Cluster: "west", Function: "orders", Keep: time.Hour})
	wantRemembered(t, pool, "orders", ages, "3", "4", "5")
	sweep(t, pool, ledger.RetentionConfig{Cluster: "east", Function: "orders", Keep: time.Hour})
	wantRemembered(t, pool, "orders", ages, "5")
}

func TestSilenceForgetsNothingThatIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	// Messages 1 to 10 were acknowledged, 11 to 20 committed and not acknowledged, 21 not
	// delivered, when both clusters of orders fell silent 8 days ago.
	ages := map[string]time.Duration{"o-10": 9 * day, "o-15": 8*day + 30*time.Minute}
	commitAged(t, east, pool, "orders", ages)
	sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, head, saved_at) values
			('east', 'orders', 'EVENTS', 'e1', 11, 21, now() - interval '8 days'),
			('west', 'orders', 'EVENTS', 'e1', 11, 21, now() - interval '8 days 1 minute'),
			('north', 'orders', 'EVENTS', 'e1', 2, 2, now() - interval '80 days'),
			('east', 'other', 'EVENTS', 'e1', 50, 50, now()), ('west', 'other', 'EVENTS', 'e1', 50, 50, now());
		insert into tandem.floor_sample (function, stream, epoch, taken_at, head) values
			('orders', 'EVENTS', 'e1', now() - interval '8 days 12 hours', 11),
			('orders', 'EVENTS', 'e1', now() - interval '8 days 10 minutes', 21)`)
	sinktest.Execute(t, pool, `update tandem.progress set keep = interval '7 days' where function = 'orders'`)
	for range 2 {
		sweep(t, pool, ledger.RetentionConfig{Cluster: "east", Function: "other", Keep: time.Hour})
	}
	if horizon, err := ledger.NewCheckpoints(pool, "east").Horizon(t.Context(), "orders", "EVENTS", "e1"); err != nil || horizon != 11 {
		t.Errorf("horizon %d, %v, want 11: the messages from it on are acknowledged by no cluster", horizon, err)
	}
	wantRemembered(t, pool, "orders", ages, "o-15")
}

// Events that were committed between two samples belong to messages below the second
// one.
func TestTheHorizonCoversAllThatIsForgotten(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	ages := map[string]time.Duration{"o-10": 11 * day, "o-15": 8 * day}
	commitAged(t, east, pool, "orders", ages)
	sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, head) values ('east', 'orders', 'EVENTS', 'e1', 31, 31);
		insert into tandem.floor_sample (function, stream, epoch, taken_at, head) values
			('orders', 'EVENTS', 'e1', now() - interval '10 days', 11), ('orders', 'EVENTS', 'e1', now() - interval '5 days', 21)`)
	sweep(t, pool, ledger.RetentionConfig{})
	if horizon, err := ledger.NewCheckpoints(pool, "east").Horizon(t.Context(), "orders", "EVENTS", "e1"); err != nil || horizon != 11 {
		t.Errorf("horizon %d, %v", horizon, err)
	}
	wantRemembered(t, pool, "orders", ages, "o-15")
}

// A stream that a function no longer reads keeps neither the events of other streams nor
// its own events that were committed since.
func TestAnAbandonedStreamHoldsOnlyWhatIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	ages := map[string]time.Duration{"before": 31 * day, "pending": 30*day + time.Hour, "since": 20 * day, "new": day}
	commitAged(t, east, pool, "orders", ages)
	sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, head, saved_at) values
			('east', 'orders', 'OLD', 'e1', 11, 21, now() - interval '30 days'), ('east', 'orders', 'NEW', 'e1', 5, 5, now());
		insert into tandem.floor_sample (function, stream, epoch, taken_at, head) values
			('orders', 'OLD', 'e1', now() - interval '30 days 12 hours', 11), ('orders', 'OLD', 'e1', now() - interval '30 days', 21)`)
	sinktest.Execute(t, pool, `insert into tandem.floor_sample (function, stream, epoch, taken_at, head)
		select 'orders', 'NEW', 'e1', at, 5 from generate_series(now() - interval '30 days', now(), interval '1 hour') at`)
	sweep(t, pool, ledger.RetentionConfig{Cluster: "east", Function: "orders"})
	if horizon, err := ledger.NewCheckpoints(pool, "east").Horizon(t.Context(), "orders", "OLD", "e1"); err != nil || horizon != 11 {
		t.Errorf("horizon of the abandoned stream %d, %v, want 11", horizon, err)
	}
	wantRemembered(t, pool, "orders", ages, "new", "pending")
}
