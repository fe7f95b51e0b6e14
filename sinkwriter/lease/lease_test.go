package lease_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

// The replicas of the tests.
var (
	first  = lease.Holder{Site: "here", Replica: "first"}
	second = lease.Holder{Site: "here", Replica: "second"}
	abroad = lease.Holder{Site: "there", Replica: "first"}
)

// acquire acquires a lease and compares its epoch; 0 means that it is not free.
func acquire(t *testing.T, leases *lease.Leases, as lease.Holder, restarted bool, epoch int64, before lease.Holder) lease.Lease {
	t.Helper()

	held, was, err := leases.Acquire(t.Context(), "orders", as, restarted)
	if err != nil || held.Epoch != epoch || was != before {
		t.Fatalf("%s got epoch %d after %+v, %v; want %d after %+v", as.Replica, held.Epoch, was, err, epoch, before)
	}
	return held
}

// age moves the latest renewal into the past, by the server's clock.
func age(t *testing.T, pool *pgxpool.Pool, by time.Duration) {
	t.Helper()

	if _, err := pool.Exec(t.Context(), `update tandem.source_lease set renewed_at = renewed_at - $1::interval, until = until - $1::interval`, by); err != nil {
		t.Fatal(err)
	}
}

func TestOneReplicaOfASourceHasTheLease(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := lease.New(pool, "east")
	one := acquire(t, leases, first, true, 1, lease.Holder{})
	acquire(t, leases, second, true, 0, first)
	acquire(t, lease.New(pool, "west"), second, true, 1, lease.Holder{}) // of another cluster
	if err := leases.Renew(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}

	// The lease is free immediately after a release, and after a time without renewal.
	if err := leases.Release(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}
	two := acquire(t, leases, second, false, 2, first)
	acquire(t, leases, first, false, 0, second)
	age(t, pool, lease.Expires-time.Second)
	acquire(t, leases, first, false, 0, second)
	age(t, pool, time.Second)
	three := acquire(t, leases, first, false, 3, second)
	for _, old := range []lease.Lease{one, two} {
		if err := leases.Renew(t.Context(), "orders", old); !errors.Is(err, lease.ErrLost) {
			t.Errorf("epoch %d was renewed: %v", old.Epoch, err)
		}
		if err := leases.Release(t.Context(), "orders", old); !errors.Is(err, lease.ErrLost) {
			t.Errorf("epoch %d was released: %v", old.Epoch, err)
		}
	}
	acquire(t, leases, second, false, 0, first)

	// An expired lease that no replica has taken can be renewed.
	age(t, pool, time.Hour)
	if err := leases.Renew(t.Context(), "orders", three); err != nil {
		t.Error(err)
	}
	acquire(t, leases, second, false, 0, first)
}

func TestAReplicaThatIsStartedAgainTakesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()

	leases := lease.New(sinktest.NewDatabase(t), "east")
	acquire(t, leases, first, true, 1, lease.Holder{})
	acquire(t, leases, first, true, 2, first)
	acquire(t, leases, first, false, 0, first) // the previous process, which resumes
}

func TestAnotherSiteIsRefusedUntilTheFirstOneIsLongGone(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := lease.New(pool, "east")
	one := acquire(t, leases, first, true, 1, lease.Holder{})
	acquire(t, leases, abroad, true, 0, first)
	if err := leases.Release(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}
	acquire(t, leases, abroad, true, 0, first) // between two processes of a rollout
	age(t, pool, lease.SiteExpires-time.Minute)
	acquire(t, leases, abroad, true, 0, first)
	age(t, pool, time.Minute)
	acquire(t, leases, abroad, true, 2, first) // the cluster has moved
	acquire(t, leases, first, true, 0, abroad)
}

func TestOfReplicasThatAcquireTheLeaseAtOnceOneGetsIt(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := lease.New(pool, "east")
	for round := range 20 {
		var wg sync.WaitGroup
		got := make([]lease.Lease, 6)
		for i := range got {
			wg.Go(func() {
				var err error
				if got[i], _, err = leases.Acquire(t.Context(), "orders", lease.Holder{Site: "here", Replica: fmt.Sprint(i)}, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var held []lease.Lease
		for _, one := range got {
			if one.Epoch > 0 {
				held = append(held, one)
			}
		}
		if len(held) != 1 || held[0].Epoch != int64(round+1) {
			t.Fatalf("round %d: the leases are %+v", round, held)
		}
		if err := leases.Release(t.Context(), "orders", held[0]); err != nil {
			t.Fatal(err)
		}
	}
}
