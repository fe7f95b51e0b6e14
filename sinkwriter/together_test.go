package sinkwriter_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/internal/model"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// With random writes to random tables, the other events of its batch change neither the
// outcome of an event nor its rows.
func TestEventsThatAreCommittedTogetherAreAsOneByOne(t *testing.T) {
	t.Parallel()
	const perTables, side = 250, 4 // events per set of tables, and sets tested in parallel
	seed := randomSeed(t)
	var sets atomic.Int64
	last := int64(max(1, *eventsFlag/perTables))
	for range min(side, last) {
		pools := map[string]*pgxpool.Pool{}
		for _, way := range []string{"together", "one by one"} {
			url := pgtest.URL(t)
			if err := schema.Migrate(t.Context(), url); err != nil {
				t.Fatal(err)
			}
			pools[way] = sinktest.NewPool(t, url)
			needCitext(t, pools[way])
			sinktest.Execute(t, pools[way], model.TypesSQL)
			// This test does not depend on which commits survive a crash.
			sinktest.Execute(t, pools[way], `do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$`)
			pools[way].Reset()
		}
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for n := sets.Add(1) - 1; n < last; n = sets.Add(1) - 1 {
				if !together(t, pools, seed+uint64(n), perTables) {
					t.Fatalf("the seed of these tables is %d", seed+uint64(n))
				}
			}
		})
	}
}

// together reports whether the same events have the same outcome in batches and
// one by one.
func together(t *testing.T, pools map[string]*pgxpool.Pool, seed uint64, events int) bool {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 3))
	tables := model.NewTables(seed, 1+random.IntN(2))
	function := fmt.Sprint("f-", seed)
	offers := make([]sinkwriter.Offer, events)
	for i := range offers {
		offers[i] = sinkwriter.Offer{Function: function, Version: "1", Event: sinktest.NewEvent(fmt.Sprintf("e-%06d", i)), Effects: tables.Effects(seed, i)}
	}
	var cuts []int // where a batch ends
	for at := 0; at < events; {
		at = min(events, at+1+random.IntN(40))
		cuts = append(cuts, at)
	}
	outcomes := map[string][]string{}
	states := map[string][]string{}
	for way, pool := range pools {
		sinktest.Execute(t, pool, tables.SQL())
		// Long enough that a busy machine causes no timeout.
		w, err := sinkwriter.New(pool, sinkwriter.Config{
			Cluster: "east", Connections: 1, ClaimTimeout: 10 * time.Second, CommitTimeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		from := 0
		for _, to := range cuts {
			if way == "together" {
				for _, o := range w.CommitAll(t.Context(), offers[from:to]) {
					outcomes[way] = append(outcomes[way], outcome{o.Receipt, o.Err}.fault())
				}
			} else {
				for _, o := range offers[from:to] {
					r, err := w.Commit(t.Context(), o)
					outcomes[way] = append(outcomes[way], outcome{r, err}.fault())
				}
			}
			from = to
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, sql := range tables.Queries() {
			states[way] = append(states[way], sinktest.Query[string](t, pool, sql))
		}
		sinktest.Execute(t, pool, tables.DropSQL())
		pool.Reset() // its statements use these tables
	}
	same := true
	if diff := cmp.Diff(outcomes["one by one"], outcomes["together"]); diff != "" {
		t.Errorf("faults (-one by one +together):\n%s", diff)
		same = false
	}
	if diff := cmp.Diff(states["one by one"], states["together"]); diff != "" {
		t.Errorf("rows (-one by one +together):\n%s", diff)
		same = false
	}
	if !same {
		t.Logf("%s", tables.SQL())
		for i, fx := range offers {
			t.Logf("event %d: one by one %q, together %q: %+v", i, outcomes["one by one"][i], outcomes["together"][i], fx.Effects.Writes)
		}
		t.Logf("batches end at %v", cuts)
	}
	return same
}
