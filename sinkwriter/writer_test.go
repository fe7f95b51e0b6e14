package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestFirstOfferWinsAndLaterOnesChangeNothing(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})

	first, err := east.Commit(t.Context(), sinktest.Order("o-1", 5))
	if err != nil {
		t.Fatal(err)
	}
	second, err := west.Commit(t.Context(), sinktest.Order("o-1", 5))
	if err != nil {
		t.Fatal(err)
	}
	key := ledger.NewKey("orders", "/test", "o-1")
	digest := [16]byte(sinktest.Query[[]byte](t, pool, `select digest from tandem.ledger`))
	if diff := cmp.Diff([]sinkwriter.Receipt{{Key: key, Won: true, Digest: digest}, {Key: key, Digest: digest}}, []sinkwriter.Receipt{first, second}); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s %s', region, orders, amount) from totals`); got != "north 1 5" {
		t.Errorf("totals: %s", got)
	}
	if got := sinktest.Query[int](t, pool, `select count(*) from orders`); got != 1 {
		t.Errorf("%d rows in orders", got)
	}
	if got := sinktest.Query[string](t, pool, `select cluster || ' ' || version from tandem.handled('orders', '/test', 'o-1')`); got != "east 1" {
		t.Errorf("handled by %s", got)
	}
	if got := sinktest.Query[string](t, pool, `select type from tandem.outbox_event`); got != "com.example.order.stored" {
		t.Errorf("outbox holds %s", got)
	}
}

func TestTwoRacingWritersApplyEachEventOnce(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	const events, callers = 4000, 64
	var won [2]int
	var mu sync.Mutex
	var all sync.WaitGroup
	for c, cluster := range []string{"east", "west"} {
		// A busy machine may pause this process for longer than the default.
		w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: cluster, ClaimTimeout: 10 * time.Second, CommitTimeout: 20 * time.Second})
		next := make(chan int)
		all.Go(func() {
			defer close(next)
			for i := range events {
				next <- i
			}
		})
		for range callers {
			all.Go(func() {
				for i := range next {
					r, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), i))
					if err != nil {
						t.Errorf("commit %d in %s: %v", i, cluster, err)
						continue
					}
					if r.Diverged {
						t.Errorf("event %d diverged", i)
					}
					if r.Won {
						mu.Lock()
						won[c]++
						mu.Unlock()
					}
				}
			})
		}
	}
	all.Wait()
	if won[0]+won[1] != events {
		t.Errorf("won %v, together not %d", won, events)
	}
	if got, want := sinktest.Query[string](t, pool, `select format('%s %s', orders, amount) from totals`), fmt.Sprintf("%d %d", events, events*(events-1)/2); got != want {
		t.Errorf("totals %s, want %s", got, want)
	}
	if got := sinktest.Query[int](t, pool, `select sum(json_array_length(events::json))::int from tandem.outbox`); got != events {
		t.Errorf("%d outputs, want %d", got, events)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s', xact_rollback, deadlocks) from pg_stat_database where datname = current_database()`); got != "0 0" {
		t.Errorf("rollbacks and deadlocks: %s", got)
	}
}

func TestABadEventDoesNotSpoilItsBatch(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})

	offers := map[string]sinkwriter.Offer{
		"check violated": sinktest.Order("bad-check", -1),
		"wrong type":     sinktest.Order("bad-type", 1),
		"missing parent": sinktest.Order("bad-parent", 1),
		"missing table":  sinktest.Order("bad-table", 1),
		"missing column": sinktest.Order("bad-column", 1),
		"zero byte":      sinktest.Order("bad-zero", 1),
	}
	offers["wrong type"].Effects.Writes[0].Row["amount"] = "many"
	offers["zero byte"].Effects.Writes[0].Row["id"] = "a\x00b"
	offers["missing parent"].Effects.Writes[0] = functions.Write{Op: functions.OpInsert, Table: "lines", Row: functions.Row{"order_id": "nobody", "line": 1}}
	offers["missing table"].Effects.Writes[0].Table = "nowhere"
	offers["missing column"].Effects.Writes[0].Row["colour"] = "red"
	want := map[string]string{
		"check violated": "event orders  orders_amount_check",
		"wrong type":     "event orders amount ",
		"missing parent": "order lines  lines_order_id_fkey",
		"missing table":  "deployment nowhere  ",
		"missing column": "deployment orders colour ",
		"zero byte":      "event orders id ",
	}

	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[string]string{}
	for name, o := range offers {
		all.Go(func() {
			_, err := w.Commit(t.Context(), o)
			var e *sinkwriter.Error
			if !errors.As(err, &e) {
				t.Errorf("%s: error %v", name, err)
				return
			}
			var rejected *functions.RejectError
			if errors.As(err, &rejected) != (e.Fault == sinkwriter.FaultEvent) {
				t.Errorf("%s: a RejectError only for the event's own fault: %v", name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			got[name] = strings.Join([]string{e.Fault.String(), e.Table, e.Column, e.Constraint}, " ")
		})
	}
	for i := range 50 {
		all.Go(func() {
			if r, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("good-%d", i), 1)); err != nil || !r.Won {
				t.Errorf("good %d: %v, %v", i, r, err)
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s', orders, amount) from totals`); got != "50 50" {
		t.Errorf("totals %s", got)
	}
	if got := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger`); got != 50 {
		t.Errorf("%d rows in the ledger", got)
	}
}

func TestTheSameKeyManyTimesInOneBatchIsAppliedOnce(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})
	var all sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 100 {
		all.Go(func() {
			r, err := w.Commit(t.Context(), sinktest.Order("same", 7))
			if err != nil || r.Diverged {
				t.Errorf("%+v, %v", r, err)
			}
			if r.Won {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("won %d times", won)
	}
	if got := sinktest.Query[int](t, pool, `select orders from totals`); got != 1 {
		t.Errorf("applied %d times", got)
	}
}

func TestNobodyLooksForDivergenceWhereThatIsLeftOut(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	checks := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	checksToo := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "north"})
	leavesOut := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west", NoDivergence: true})
	for _, won := range []struct {
		id            string
		first, second *sinkwriter.Writer
		diverged      bool
	}{{"a", checks, leavesOut, false}, {"b", leavesOut, checks, false}, {"c", checks, checksToo, true}} {
		if r, err := won.first.Commit(t.Context(), sinktest.Order(won.id, 1)); err != nil || !r.Won {
			t.Fatalf("%s, first: %+v, %v", won.id, r, err)
		}
		for range 6 { // the last times it looks before it claims
			if r, err := won.second.Commit(t.Context(), sinktest.Order(won.id, 2)); err != nil || r.Won || r.Diverged != won.diverged || won.second == leavesOut && r.Digest != [16]byte{} {
				t.Errorf("%s, second: %+v, %v", won.id, r, err)
			}
		}
	}
}

func TestALoserThatComputedSomethingElseIsToldSo(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	// Long enough that a busy machine causes no retry.
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west", ClaimTimeout: 10 * time.Second})
	if _, err := east.Commit(t.Context(), sinktest.Order("o", 1)); err != nil {
		t.Fatal(err)
	}
	other := sinktest.Order("o", 2)
	winners := [16]byte(sinktest.Query[[]byte](t, pool, `select digest from tandem.ledger`))
	if r, err := west.Commit(t.Context(), other); err != nil || !r.Diverged || r.Won || r.Digest != winners {
		t.Errorf("other effects, same version: %+v, %v, want the winner's digest %x", r, err, winners)
	}
	other.Version = "2"
	if r, err := west.Commit(t.Context(), other); err != nil || r.Diverged || r.Won {
		t.Errorf("other effects, other version: %+v, %v", r, err)
	}
	if err := west.Close(t.Context()); err != nil { // Close records the rest
		t.Fatal(err)
	}
	if got := sinktest.Query[string](t, pool, `select concat_ws(' ', function, version, source, id, lost_cluster, won_cluster, wanted -> 'Writes' -> 0 -> 'Row' ->> 'amount') from tandem.divergence`); got != "orders 1 /test o west east 2" {
		t.Errorf("recorded: %s", got)
	}
	if got := sinktest.Query[string](t, pool, `select string_agg(concat_ws(' ', lost_version, won_version, events), ', ' order by lost_version) from tandem.divergence_count`); got != "1 1 1, 2 1 1" {
		t.Errorf("counted: %s", got)
	}
	if got := west.Stats(); got != (sinkwriter.Stats{Lost: 2, Diverged: 1, OtherVersion: 1}) {
		t.Errorf("stats: %+v", got)
	}
	if got := sinktest.Query[int](t, pool, `select amount from orders`); got != 1 {
		t.Errorf("what the winner stored does not stand: %d", got)
	}
}

func TestAClaimThatHangsIsEndedAfterTheClaimTimeout(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})

	hanging, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Release()
	key := ledger.NewKey("orders", "/test", "o")
	for _, sql := range []string{"begin", mark.SQL, `insert into tandem.ledger (writer, key, digest) values (1, '` + key.String() + `', 'x')`} {
		if _, err := hanging.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	r, err := w.Commit(ctx, sinktest.Order("o", 1))
	if err != nil || !r.Won {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := hanging.Exec(t.Context(), "commit"); err == nil {
		t.Error("the one that hung could still commit")
	}
}

func TestEveryValueComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if _, err := pool.Exec(t.Context(), `create schema "My Schema"; create type mood as enum ('glad', 'sad');
create domain positive as int check (value > 0);
create table "My Schema"."Values" (id uuid primary key, "a ""b""" text, b bool, i2 smallint, i4 int, f float8, n numeric, d date,
  ts timestamp, tz timestamptz, j jsonb, raw json, by bytea, arr int[], texts text[], m mood, dom positive, nothing text, iv interval)`); err != nil {
		t.Fatal(err)
	}
	zone := time.FixedZone("far", 5*3600+1800)
	at := time.Date(2001, 2, 3, 4, 5, 6, 7000, zone)
	var fx functions.Effects
	fx.Insert("My Schema.Values", functions.Row{
		"id": "00000000-0000-0000-0000-00000000002a", `a "b"`: `q"'\`, "b": true, "i2": int16(-2), "i4": 4, "f": 1.5, "n": "12.340", "d": at.UTC().Truncate(24 * time.Hour),
		"ts": at, "tz": at, "j": map[string]any{"b": 1, "a": []int{1}}, "raw": []byte(`{"z":1,  "a":2}`), "by": []byte{0, 1, 255},
		"arr": []int{1, 2, 3}, "texts": []string{"a b", "{,}", `"`}, "m": "sad", "dom": 3, "nothing": nil, "iv": "90 minutes",
	})
	if _, err := w.Commit(t.Context(), sinkwriter.Offer{Function: "f", Version: "1", Event: sinktest.NewEvent("1"), Effects: fx}); err != nil {
		t.Fatal(err)
	}
	got := sinktest.Query[string](t, pool, `select concat_ws('|', id, "a ""b""", b, i2, i4, f, n, d, ts, tz at time zone 'utc', j, raw, by, arr, texts, m, dom, nothing is null, iv) from "My Schema"."Values"`)
	want := `00000000-0000-0000-0000-00000000002a|q"'\|t|-2|4|1.5|12.340|2001-02-02|2001-02-02 22:35:06.000007|2001-02-02 22:35:06.000007|` +
		`{"a": [1], "b": 1}|{"z":1,  "a":2}|\x0001ff|{1,2,3}|{"a b","{,}","\""}|sad|3|t|01:30:00`
	if got != want {
		t.Errorf("stored\n%s, want\n%s", got, want)
	}
}

// stream records the published events, and can be set to fail.
type stream struct {
	mu     sync.Mutex
	down   bool
	events []event.Event
}

func (s *stream) Publish(_ context.Context, events []event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("the stream is down")
	}
	s.events = append(s.events, events...)
	return nil
}

func (s *stream) ids() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, e := range s.events {
		ids = append(ids, e.Source()+" "+e.ID())
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func TestTheWinnerPublishesItsOutputsAndEmptiesTheOutbox(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	out := &stream{}
	w, err := sinkwriter.New(pool, sinkwriter.Config{Cluster: "east", Publisher: out})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(out.ids()); got != 10 {
		t.Errorf("%d outputs published", got)
	}
	if n, err := sinkwriter.NewOutbox(pool).Backlog(t.Context()); err != nil || n != 0 {
		t.Errorf("backlog %d, %v", n, err)
	}
	if _, err := w.Commit(t.Context(), sinktest.Order("late", 1)); !errors.Is(err, sinkwriter.ErrClosed) {
		t.Errorf("commit after close: %v", err)
	}
}

func TestTheRelayTakesOverWhatADeadWinnerLeftBehind(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	down, up := &stream{down: true}, &stream{}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: down, PublishTimeout: 25 * time.Second})
	for i := range 3 {
		if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	box := sinkwriter.NewOutbox(pool)
	if n, _, err := box.Relay(t.Context(), up.Publish); err != nil || n != 0 {
		t.Fatalf("not overdue yet: %d, %v", n, err)
	}
	// The writer is closed before it has published the outputs.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Close(ended); err == nil {
		t.Error("outputs that are not published are no error as the writer closes")
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "update tandem.outbox set due = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := box.Relay(t.Context(), down.Publish); err == nil {
		t.Error("a publisher that is down is no error")
	}
	if _, err := pool.Exec(t.Context(), "update tandem.outbox set due = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	if n, _, err := box.Relay(t.Context(), up.Publish); err != nil || n != 3 {
		t.Fatalf("overdue: %d, %v", n, err)
	}
	if n, err := box.Backlog(t.Context()); err != nil || n != 0 {
		t.Errorf("backlog %d, %v", n, err)
	}
	source, id := functions.OutputIdentity("orders", "/test", "o-1", 0)
	if ids := up.ids(); !slices.Contains(ids, source+" "+id) {
		t.Errorf("the relay published %v, without %s %s", ids, source, id)
	}
}

func TestCommitGivesUpWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewPool(t, "postgres://nobody@127.0.0.1:1/none")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Logger: slog.New(slog.NewTextHandler(lineWriter(func(line string) {
		if strings.Contains(line, "retrying a batch") {
			cancel()
		}
	}), nil))})
	_, err := w.Commit(ctx, sinktest.Order("o", 1))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(fmt.Sprint(err), "the last try") || !strings.Contains(fmt.Sprint(err), "127.0.0.1") {
		t.Errorf("error %v, want what went wrong with the last try", err)
	}
}

func TestAChangedTableIsNoticed(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if _, err := w.Commit(t.Context(), sinktest.Order("o-1", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), "alter table orders alter amount type numeric, add colour text"); err != nil {
		t.Fatal(err)
	}
	o := sinktest.Order("o-2", 1)
	o.Effects.Writes[0].Row["colour"] = "red"
	var err error
	for range 3 { // as a source would redeliver it
		if _, err = w.Commit(t.Context(), o); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := sinktest.Query[string](t, pool, "select colour from orders where id = 'o-2'"); got != "red" {
		t.Errorf("colour %s", got)
	}
}

func TestABacklogOverItsLimitIsRefusedUntilItIsPublished(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", BacklogBytes: 1 << 20})
	// Two megabytes of incompressible data.
	if _, err := pool.Exec(t.Context(), `insert into tandem.outbox (events)
		select to_json(array(select sha512(n::text::bytea)::text from generate_series(1, 16000) n))::text`); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", i), 1))
	}
	var e *sinkwriter.Error
	if !errors.Is(err, sinkwriter.ErrBacklog) || !errors.As(err, &e) || e.Fault != sinkwriter.FaultTransient {
		t.Fatalf("over the limit: %v", err)
	}
	quiet := sinktest.Order("quiet", 1)
	quiet.Effects.Outputs = nil
	if _, err := w.Commit(t.Context(), quiet); err != nil {
		t.Errorf("an event without outputs: %v", err)
	}
	if _, err := pool.Exec(t.Context(), `delete from tandem.outbox`); err != nil {
		t.Fatal(err)
	}
	for { // until it is measured again
		r, err := w.Commit(t.Context(), sinktest.Order("late", 1))
		if err == nil {
			if !r.Won {
				t.Errorf("%+v", r)
			}
			break
		}
		if !errors.Is(err, sinkwriter.ErrBacklog) || t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestEachOfSeveralOffersHasItsOwnFate(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	if _, err := w.Commit(t.Context(), sinktest.Order("old", 1)); err != nil {
		t.Fatal(err)
	}
	nameless := sinktest.Order("x", 1)
	nameless.Event = event.New()
	got := w.CommitAll(t.Context(), []sinkwriter.Offer{sinktest.Order("a", 1), sinktest.Order("bad", -1), sinktest.Order("old", 1), nameless, sinktest.Order("b", 1), sinktest.Order("a", 1)})
	var fates []string
	for _, o := range got {
		var e *sinkwriter.Error
		switch {
		case errors.As(o.Err, &e):
			fates = append(fates, e.Fault.String())
		case o.Err != nil:
			fates = append(fates, o.Err.Error())
		default:
			fates = append(fates, map[bool]string{true: "won", false: "lost"}[o.Receipt.Won])
		}
	}
	if diff := cmp.Diff([]string{"won", "event", "lost", "function", "won", "lost"}, fates); diff != "" {
		t.Errorf("fates (-want +got):\n%s", diff)
	}
	if got := sinktest.Query[int](t, pool, `select orders from totals`); got != 3 {
		t.Errorf("%d orders, want 3", got)
	}
	if got := w.CommitAll(t.Context(), nil); len(got) != 0 {
		t.Errorf("nothing offered: %v", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range w.CommitAll(ended, []sinkwriter.Offer{sinktest.Order("c", 1), sinktest.Order("d", 1)}) {
		if !errors.Is(o.Err, context.Canceled) {
			t.Errorf("after the end of its context: %v", o.Err)
		}
	}
}
