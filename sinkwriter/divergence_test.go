package sinkwriter_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// otherVersion returns orders, and the same orders with other effects of another
// version.
func otherVersion(n int) (first, second []sinkwriter.Offer) {
	for i := range n {
		a, b := sinktest.Order(fmt.Sprint("o-", i), 1), sinktest.Order(fmt.Sprint("o-", i), 2)
		b.Version = "2"
		first, second = append(first, a), append(second, b)
	}
	return first, second
}

func commitEach(t *testing.T, w *sinkwriter.Writer, offers []sinkwriter.Offer, won bool) {
	t.Helper()
	for i, o := range w.CommitAll(t.Context(), offers) {
		if o.Err != nil || o.Receipt.Won != won {
			t.Fatalf("offer %d: %+v, %v, want won %t", i, o.Receipt, o.Err, won)
		}
	}
}

// During a rollout that changes the effects of every event, every lost offer
// differs.
func TestLosersThatDifferAreRecordedTogether(t *testing.T) {
	t.Parallel()
	const events, versions = 2000, 2
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table written (name text, rows bigint);
		create function note_written() returns trigger language plpgsql as $$ begin
			insert into written select tg_table_name, count(*) from new_rows; return null; end $$;
		create trigger note after insert on tandem.divergence_count referencing new table as new_rows for each statement execute function note_written();
		create trigger note_update after update on tandem.divergence_count referencing new table as new_rows for each statement execute function note_written();
		create trigger note after insert on tandem.divergence referencing new table as new_rows for each statement execute function note_written()`)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	first, second := otherVersion(events)
	for i := range events / 2 { // half of them with the same version
		second[i].Version = "1"
	}
	begin := time.Now()
	commitEach(t, east, first, true)
	commitEach(t, west, second, false)
	if err := west.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	seconds := int(time.Since(begin).Seconds()) + 2 // it records once a second, and once when it closes
	if got := sinktest.Query[string](t, pool, `select string_agg(concat_ws(' ', lost_version, won_version, lost_cluster, events), ', ' order by lost_version) from tandem.divergence_count`); got != "1 1 west 1000, 2 1 west 1000" {
		t.Errorf("counted: %s", got)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.divergence`); n != events/2 {
		t.Errorf("%d divergences are stored, want %d", n, events/2)
	}
	if n := sinktest.Query[int](t, pool, `select coalesce(sum(rows), 0) from written where name = 'divergence_count'`); n > seconds*versions {
		t.Errorf("rows of counts were written %d times for %d losers in %d s", n, events, seconds)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from written where name = 'divergence'`); n > seconds {
		t.Errorf("%d statements stored divergences in %d s", n, seconds)
	}
}

func TestTheDivergencesOfAVersionAreBounded(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `insert into tandem.divergence (function, version, source, id, lost_cluster, won_cluster, lost_digest, won_digest, wanted)
		select 'orders', '2', '/old', n::text, 'west', 'east', '', '', '{}' from generate_series(1, 995) n`)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	first, second := otherVersion(20)
	for i := range first {
		first[i].Version = "2"
	}
	commitEach(t, east, first, true)
	commitEach(t, west, second, false)
	if err := west.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.divergence`); n != 1000 {
		t.Errorf("%d divergences are stored, want 1000", n)
	}
	if n := sinktest.Query[int](t, pool, `select events from tandem.divergence_count`); n != 20 {
		t.Errorf("%d are counted, want 20", n)
	}
}

func TestLosersDoNotWaitForTheirCount(t *testing.T) {
	t.Parallel()
	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	first, second := otherVersion(20)
	commitEach(t, east, first, true)
	commitEach(t, west, second[:1], false)
	sinktest.Eventually(t, "the count has a row", func() bool {
		return sinktest.Query[int](t, pool, `select count(*) from tandem.divergence_count`) == 1
	})
	release := holdRow(t, pool.Config().ConnString(), `update tandem.divergence_count set events = events`)
	ctx, cancel := context.WithTimeout(t.Context(), heldUp)
	defer cancel()
	for i, o := range second {
		if r, err := west.Commit(ctx, o); err != nil || r.Won {
			t.Fatalf("loser %d of a held row: %+v, %v", i, r, err)
		}
	}
	if n := sinktest.Query[int](t, pool, `select events from tandem.divergence_count`); n != 1 {
		t.Errorf("%d are counted while the row is held", n)
	}
	release()
	sinktest.Eventually(t, "all are counted once the row is free", func() bool {
		return sinktest.Query[int](t, pool, `select events from tandem.divergence_count`) == 21
	})
}
