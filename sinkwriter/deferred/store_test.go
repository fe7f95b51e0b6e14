package deferred_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// newEvent returns an event of function orders that failed because of a missing
// partition.
func newEvent(id string, sequence uint64) deferred.Event {
	return deferred.Event{
		Key: ledger.NewKey("orders", "/test", id), Source: "/test", ID: id, Type: "com.example.order.placed",
		Stream: "EVENTS", Epoch: "e1", Sequence: sequence, Arrived: time.UnixMilli(1).UTC(),
		Version: "1", Fingerprint: "23514 orders", Reason: "no partition", Attempts: 2, Failing: time.Minute, Proven: true,
		Event: []byte(`{"id":"\u0000"}`),
	}
}

func deferEvents(t *testing.T, store *deferred.Store, events ...deferred.Event) []deferred.Result {
	t.Helper()

	results, err := store.Defer(t.Context(), "orders", events, 0)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func count(t *testing.T, pool *pgxpool.Pool, where string, args ...any) int64 {
	t.Helper()

	return sinktest.Query[int64](t, pool, `select count(*) from tandem.deferred_event where `+where, args...)
}

func TestAnEventIsDeferredOnlyIfNothingElseIsKnownOfIt(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east, west := deferred.NewStore(pool, "east"), deferred.NewStore(pool, "west")
	if _, err := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"}).Commit(t.Context(), sinktest.Order("committed", 1)); err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, pool, `insert into tandem.horizon (function, stream, epoch, floor) values ('orders', 'EVENTS', 'e1', 100)`)

	unproven := newEvent("unproven", 300)
	unproven.Proven = false
	events := []deferred.Event{newEvent("committed", 101), newEvent("below", 99), newEvent("first", 100), newEvent("first", 100), unproven, newEvent("second", 1<<63)}
	for range 2 { // even if it is stored
		want := []deferred.Result{deferred.Committed, deferred.BelowHorizon, deferred.Stored, deferred.Stored, deferred.Unproven, deferred.Stored}
		if diff := cmp.Diff(want, deferEvents(t, east, events...)); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	}
	if n := count(t, pool, `sequence in (100, 9223372036854775808) and cluster = 'east'`); n != 2 {
		t.Errorf("%d events are stored, want 2", n)
	}

	// The proof of another cluster with the same version counts.
	other := newEvent("first", 100)
	other.Proven, other.Version = false, "2"
	if got := deferEvents(t, west, other); got[0] != deferred.Unproven {
		t.Errorf("another version: result %d", got[0])
	}
	if lacks, err := west.Elsewhere(t.Context(), "orders"); err != nil || len(lacks) != 1 || lacks[0] != (deferred.Lack{Fingerprint: "23514 orders", Version: "1"}) {
		t.Errorf("elsewhere %v, %v", lacks, err)
	}
	other.Version = "1"
	if got := deferEvents(t, west, other); got[0] != deferred.Stored {
		t.Errorf("the same version: result %d", got[0])
	}
}

func TestAReplicaWithoutTheLeaseDefersNothing(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := lease.New(pool, "east")
	held, _, err := leases.Acquire(t.Context(), "orders", lease.Holder{Site: "s", Replica: "a"}, true)
	if err != nil {
		t.Fatal(err)
	}
	store := deferred.NewStore(pool, "east").With(held)
	deferEvents(t, store, newEvent("before", 1))
	sinktest.Execute(t, pool, `update tandem.source_lease set epoch = epoch + 1`)
	if _, err := store.Defer(t.Context(), "orders", []deferred.Event{newEvent("after", 2)}, 0); !errors.Is(err, lease.ErrLost) {
		t.Errorf("error %v", err)
	}
	if n := count(t, pool, "true"); n != 1 {
		t.Errorf("%d events are stored, want 1", n)
	}
}

func TestOneEventOfAFingerprintIsRunFirst(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	store := deferred.NewStore(pool, "east")
	held := newEvent("held", 1)
	held.Held = true
	column := newEvent("column", 5)
	column.Fingerprint = "42703 orders.gate"
	deferEvents(t, store, held, newEvent("a", 2), newEvent("b", 3), column)
	deferEvents(t, store, newEvent("c", 6))

	ids := func(rows []deferred.Row, err error) (list []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			list = append(list, r.ID)
		}
		return list
	}
	expect := func(what string, got []string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	rows, err := store.Due(t.Context(), "orders", 10)
	expect("due", ids(rows, err), "a", "column")
	if rows[0].Key != newEvent("a", 2).Key || string(rows[0].Event) != `{"id":"\u0000"}` {
		t.Errorf("row %+v", rows[0])
	}
	expect("the rest", ids(store.After(t.Context(), "orders", "23514 orders", 0, 10)), "b", "c")
	expect("the rest after b", ids(store.After(t.Context(), "orders", "23514 orders", rows[0].Position+1, 10)), "c")

	if err := store.Postpone(t.Context(), "orders", newEvent("a", 2)); err != nil {
		t.Fatal(err)
	}
	expect("due", ids(store.Due(t.Context(), "orders", 10)), "column")
	if err := store.Schedule(t.Context(), "orders", []string{"23514 orders"}, []int64{rows[0].Position + 1}, 0); err != nil {
		t.Fatal(err)
	}
	expect("due", ids(store.Due(t.Context(), "orders", 10)), "column", "b")
	if err := store.Schedule(t.Context(), "orders", []string{"23514 orders", "none"}, []int64{1 << 40, 0}, 0); err != nil {
		t.Fatal(err)
	}
	expect("due", ids(store.Due(t.Context(), "orders", 10)), "column", "b", "a")

	counts, err := store.Counts(t.Context(), "orders")
	if err != nil || len(counts) != 2 || counts[0].Events != 4 || counts[0].Held != 1 || counts[0].Bytes != 4*15 || !counts[0].Scheduled || counts[0].Oldest < time.Minute {
		t.Errorf("counts %+v, %v", counts, err)
	}
}

// However late a deferred event runs, and whatever else the ledger has forgotten.
func TestTheLedgerKeepsTheRowOfADeferredEvent(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	store := deferred.NewStore(pool, "east")
	writer := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	deferEvents(t, store, newEvent("o-1", 1))
	for i := range 3 {
		if _, err := writer.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	sinktest.Execute(t, pool, `update tandem.ledger set committed_at = now() - interval '30 days'`)
	sinktest.Execute(t, pool, `insert into tandem.progress (cluster, function, stream, epoch, floor, head) values ('east', 'orders', 'EVENTS', 'e1', 100, 100)`)
	sinktest.Execute(t, pool, `insert into tandem.floor_sample (function, stream, epoch, taken_at, head) values ('orders', 'EVENTS', 'e1', now() - interval '20 days', 100)`)
	retention, err := ledger.NewRetention(pool, ledger.RetentionConfig{Pause: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := retention.Sweep(t.Context()); n != 2 || err != nil {
		t.Fatalf("forgot %d rows, %v, want 2", n, err)
	}
	offer := sinktest.Order("o-1", 1)
	offer.Deferred = true
	if receipt, err := writer.Commit(t.Context(), offer); err != nil || receipt.Won {
		t.Errorf("the deferred event was applied again: %+v, %v", receipt, err)
	}
	if err := store.DeleteCommitted(t.Context(), []ledger.Key{keyOf("o-1"), keyOf("o-0")}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, "true"); n != 0 {
		t.Errorf("%d deferred events are left", n)
	}
	if n, err := retention.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("forgot %d rows, %v, want the last", n, err)
	}
}

func keyOf(id string) ledger.Key { return ledger.NewKey("orders", "/test", id) }

func TestTheCommitOfADeferredEventEndsItInEveryCluster(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	for _, cluster := range []string{"east", "west"} {
		deferEvents(t, deferred.NewStore(pool, cluster), newEvent("o-1", 1), newEvent("o-2", 2), newEvent("o-3", 3))
	}
	writer := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	first, refused, other := sinktest.Order("o-1", 1), sinktest.Order("o-2", -1), sinktest.Order("o-4", 1)
	first.Deferred, refused.Deferred = true, true
	outcomes := writer.CommitAll(t.Context(), []sinkwriter.Offer{first, refused, other})
	if !outcomes[0].Receipt.Won || outcomes[1].Err == nil || !outcomes[2].Receipt.Won {
		t.Fatalf("outcomes %+v", outcomes)
	}
	if n := count(t, pool, "id = 'o-1'"); n != 0 {
		t.Errorf("%d rows of the committed event are left", n)
	}
	if n := count(t, pool, "true"); n != 4 {
		t.Errorf("%d rows are left, want those of the others", n)
	}

	// Commit does not wait for a deferred event that another session has locked.
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // it ends with the test
	if _, err := tx.Exec(t.Context(), `select from tandem.deferred_event where id = 'o-3' and cluster = 'west' for update`); err != nil {
		t.Fatal(err)
	}
	third := sinktest.Order("o-3", 1)
	third.Deferred = true
	if receipt, err := writer.Commit(t.Context(), third); err != nil || !receipt.Won {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}
	if n := count(t, pool, "id = 'o-3'"); n != 1 {
		t.Errorf("%d rows are left, want the one that is locked", n)
	}
}

func TestADeadEventIsDeletedInItsClusterOnly(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east := deferred.NewStore(pool, "east")
	for _, cluster := range []string{"east", "west"} {
		deferEvents(t, deferred.NewStore(pool, cluster), newEvent("o-1", 1), newEvent("o-2", 2))
	}
	if err := east.DeleteCommitted(t.Context(), []ledger.Key{newEvent("o-1", 1).Key}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, "true"); n != 4 {
		t.Errorf("%d rows are left, want 4: the ledger has none of them", n)
	}
	if err := east.Delete(t.Context(), []ledger.Key{newEvent("o-1", 1).Key}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, "id = 'o-1' and cluster = 'west'"); n != 1 || count(t, pool, "true") != 3 {
		t.Errorf("%d rows of west, %d in all, want 1 and 3", n, count(t, pool, "true"))
	}
}

func TestAChangeOfTheCatalogIsNoticed(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table days (day date not null, id text, primary key (day, id)) partition by range (day)`)
	sinktest.Execute(t, pool, `create type gate as enum ('A1')`)
	store := deferred.NewStore(pool, "east")
	for _, change := range []string{
		`create table days_1 partition of days for values from ('2001-01-01') to ('2001-01-02')`,
		`alter type gate add value 'A2'`,
		`alter table orders add column gate gate`,
		`grant select on orders to public`,
		`grant select (amount) on totals to public`,
	} {
		before, err := store.Catalog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), change); err != nil {
			t.Fatalf("%s: %v", change, err)
		}
		conn.Release()
		sinktest.Eventually(t, "a change is noticed: "+change, func() bool {
			now, err := store.Catalog(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			return now != before
		})
	}
}

func TestDeferredEventsOfAllClustersAreListedRunAndDropped(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	for _, cluster := range []string{"west", "east"} {
		for i := range 3 {
			e := newEvent(fmt.Sprintf("o-%d", i), uint64(i))
			e.Failing = time.Duration(10-i) * time.Hour
			e.Held = i == 2
			deferEvents(t, deferred.NewStore(pool, cluster), e)
		}
	}
	events := deferred.NewEvents(pool)
	var got []string
	var after *deferred.Deferred
	for {
		list, err := events.List(t.Context(), deferred.Filter{Function: "orders"}, after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		after = &list[0]
		got = append(got, fmt.Sprintf("%s %s %t %d", after.ID, strings.Join(after.Clusters, ","), after.Held, after.Attempts))
	}
	if diff := cmp.Diff([]string{"o-0 east,west false 4", "o-1 east,west false 4", "o-2 east,west true 4"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for name, tt := range map[string]struct {
		filter deferred.Filter
		want   int
	}{
		"fingerprint": {deferred.Filter{Fingerprint: "23514 ORD"}, 3},
		"another":     {deferred.Filter{Fingerprint: "42703"}, 0},
		"id":          {deferred.Filter{ID: "o-1"}, 1},
		"cluster":     {deferred.Filter{Cluster: "north"}, 0},
		"since":       {deferred.Filter{Since: time.Now().Add(-9*time.Hour - 30*time.Minute)}, 2},
		"until":       {deferred.Filter{Until: time.Now().Add(-9*time.Hour - 30*time.Minute)}, 1},
	} {
		if list, err := events.List(t.Context(), tt.filter, nil, 10); err != nil || len(list) != tt.want {
			t.Errorf("%s: %d events, %v, want %d", name, len(list), err, tt.want)
		}
	}
	if err := events.Run(t.Context(), "orders", "/test", "o-2"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, "id = 'o-2' and next_run_at <= now()"); n != 2 {
		t.Errorf("%d rows are run, want 2", n)
	}
	rows, err := events.Read(t.Context(), "orders", "/test", "o-2")
	if err != nil || len(rows) != 2 || rows[0].Cluster != "east" || rows[0].Sequence != "2" || rows[0].Reason != "no partition" {
		t.Errorf("rows %+v, %v", rows, err)
	}
	if err := events.Drop(t.Context(), "orders", "/test", "o-2"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		events.Drop(t.Context(), "orders", "/test", "o-2"), events.Run(t.Context(), "orders", "/test", "o-2"),
		func() error { _, err := events.Read(t.Context(), "orders", "/test", "o-2"); return err }(),
	} {
		if !errors.Is(err, deferred.ErrNotFound) {
			t.Errorf("error %v", err)
		}
	}
}
