package sinkwriter_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func TestARowThatIsThereAfterAllCostsNoRollback(t *testing.T) {
	t.Parallel()

	const batch, batches = 500, 25
	pool := sinktest.NewDatabase(t)
	sinktest.Execute(t, pool, `create table places (id text primary key, name text not null);
		create table inserted_by (sql text primary key, rows bigint not null);
		create function note_sql() returns trigger language plpgsql as $$ begin
			insert into inserted_by values (current_query(), 1) on conflict (sql) do update set rows = inserted_by.rows + 1; return null; end $$;
		create trigger note after insert on places for each row execute function note_sql();
		insert into places values ('there', 'first')`)
	plain := func(want bool, rows int) {
		t.Helper()
		sql := sinktest.Query[string](t, pool, `select coalesce(string_agg(sql || ': ' || rows, e'\n'), '') from inserted_by where sql like '%unnest%'`)
		n := sinktest.Query[int](t, pool, `select coalesce(sum(rows), 0) from inserted_by where sql like '%unnest%' and sql not like '%on conflict%'`)
		if (n > 0) != want || !want && !strings.Contains(sql, "on conflict") || want && n != rows {
			t.Errorf("%d rows were inserted plainly, want %d:\n%s", n, rows, sql)
		}
		sinktest.Execute(t, pool, `truncate inserted_by`)
	}
	offer := func(event, place string) sinkwriter.Offer {
		o := sinkwriter.Offer{Function: "places", Version: "1", Event: sinktest.NewEvent(event)}
		o.Effects.Insert("places", functions.Row{"id": place, "name": event})
		o.Effects.Emit(functions.Output{Type: "com.example.placed", Data: event})
		return o
	}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west", Connections: 1, BatchEvents: batch, ClaimTimeout: 10 * time.Second})
	commit := func(round int, places ...string) {
		t.Helper()
		offers := make([]sinkwriter.Offer, 0, batch)
		for i := range batch {
			id := fmt.Sprintf("%d-%d", round, i)
			offers = append(offers, offer(id, id))
		}
		for i, place := range places {
			offers[i+batch/2] = offer(offers[i+batch/2].Event.ID(), place)
		}
		commitEach(t, w, offers, true)
	}
	for round := range batches {
		commit(round)
	}
	plain(true, (batches-10_000/batch)*batch)
	commit(batches, "there")
	plain(false, 0)
	commit(batches+1, "there", "new")
	plain(false, 0)
	if name := sinktest.Query[string](t, pool, `select name from places where id = 'there'`); name != "first" {
		t.Errorf("the row is now of %s", name)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from places`); n != (batches+2)*batch-1 {
		t.Errorf("%d rows, want %d", n, (batches+2)*batch-1)
	}
	if n := w.Stats().Retries; n != 0 {
		t.Errorf("batches were retried %d times", n)
	}
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger`); n != (batches+2)*batch {
		t.Errorf("%d rows in the ledger, want %d", n, (batches+2)*batch)
	}
}
