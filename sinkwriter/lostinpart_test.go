package sinkwriter_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

func TestABatchThatIsLostInPartWinsTheRest(t *testing.T) {
	t.Parallel()

	const events = 10
	pool := sinktest.NewDatabase(t)
	orders := 0
	for round, lost := range [][]int{{}, {0}, {0, 1, 2, 3}, {0, 9}, {1}, {2, 5, 6}, {9}, {1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		// One batch at a time, and a claim timeout that no busy machine exceeds.
		config := sinkwriter.Config{Cluster: "west", Connections: 1, ClaimTimeout: 10 * time.Second}
		for _, noDivergence := range []bool{false, true} {
			config.NoDivergence = noDivergence
			west := sinktest.NewWriter(t, pool, config)
			east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", NoDivergence: noDivergence, ClaimTimeout: 10 * time.Second})
			name := fmt.Sprintf("round %d, without divergence %t, lost %v", round, noDivergence, lost)
			id := func(i int) string { return fmt.Sprintf("%d-%t-%03d", round, noDivergence, i) } // in the order of keys
			for _, i := range lost {
				if r, err := east.Commit(t.Context(), sinktest.Order(id(i), i)); err != nil || !r.Won {
					t.Fatalf("%s: event %d in east: %+v, %v", name, i, r, err)
				}
			}
			diverges := func(i int) bool { return i%2 == 1 }
			offers := make([]sinkwriter.Offer, events)
			for i := range offers {
				offers[i] = sinktest.Order(id(i), i)
				if diverges(i) {
					offers[i] = sinktest.Order(id(i), i+100)
				}
			}
			for attempt := range 2 {
				for i, o := range west.CommitAll(t.Context(), offers) {
					isLost := attempt > 0 || slices.Contains(lost, i)
					diverged := slices.Contains(lost, i) && diverges(i) && !noDivergence
					if o.Err != nil || o.Receipt.Won == isLost || o.Receipt.Diverged != diverged {
						t.Errorf("%s: event %d, attempt %d: %+v, %v, want lost %t, diverged %t", name, i, attempt, o.Receipt, o.Err, isLost, diverged)
					}
				}
			}
			orders += events
		}
	}
	if got := sinktest.Query[int](t, pool, `select orders from totals`); got != orders {
		t.Errorf("%d orders are counted, want %d", got, orders)
	}
}
