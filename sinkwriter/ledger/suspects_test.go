package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestOneClusterAtATimeHasTheLeaseOfASuspect(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east, west := ledger.NewSuspects(pool, "east"), ledger.NewSuspects(pool, "west")
	one, two := ledger.NewKey("f", "/s", "1"), ledger.NewKey("f", "/s", "2")
	lease := func(s *ledger.Suspects, expires time.Duration, want ...ledger.Key) {
		t.Helper()
		held, err := s.Lease(t.Context(), []ledger.Key{one, two}, expires)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(held, func(a, b ledger.Key) int { return slices.Compare(a[:], b[:]) })
		slices.SortFunc(want, func(a, b ledger.Key) int { return slices.Compare(a[:], b[:]) })
		if !slices.Equal(held, want) {
			t.Errorf("the leases are %v, want %v", held, want)
		}
	}
	lease(east, time.Minute, one, two)
	lease(west, time.Minute)
	lease(east, time.Minute, one, two) // it holds them already
	if err := west.Release(t.Context(), []ledger.Key{one}); err != nil {
		t.Fatal(err)
	}
	lease(west, time.Minute) // it had nothing to release
	if err := east.Release(t.Context(), []ledger.Key{one}); err != nil {
		t.Fatal(err)
	}
	lease(west, 0, one)
	lease(east, time.Minute, one, two) // west's lease has expired
}

func TestADeadLetterOfAnotherClusterIsFound(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	if _, err := pool.Exec(t.Context(), `insert into tandem.dead_letter (function, source, id, cluster, type, code, reason, event)
values ('f', '/s', '1', 'east', 't', 500, 'ended', '{}')`); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cluster, id string
		want        bool
	}{{"east", "1", false}, {"west", "1", true}, {"west", "2", false}} {
		dead, err := ledger.NewSuspects(pool, tt.cluster).DeadElsewhere(t.Context(), ledger.NewKey("f", "/s", tt.id))
		if err != nil || dead != tt.want {
			t.Errorf("event %s is dead elsewhere than in %s: %t, %v; want %t", tt.id, tt.cluster, dead, err, tt.want)
		}
	}
}
