package ledger_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// The replicas of the tests.
var (
	first  = ledger.Holder{Site: "here", Replica: "first"}
	second = ledger.Holder{Site: "here", Replica: "second"}
	abroad = ledger.Holder{Site: "there", Replica: "first"}
)

// acquire expects the epoch of a lease; 0 if it is not free.
func acquire(t *testing.T, leases *ledger.Leases, as ledger.Holder, restarted bool, epoch int64, before ledger.Holder) ledger.Lease {
	t.Helper()

	lease, was, err := leases.Acquire(t.Context(), "orders", as, restarted)
	if err != nil || lease.Epoch != epoch || was != before {
		t.Fatalf("%s got epoch %d after %+v, %v; want %d after %+v", as.Replica, lease.Epoch, was, err, epoch, before)
	}
	return lease
}

// age moves the latest renewal into the past of the server's clock.
func age(t *testing.T, pool *pgxpool.Pool, by time.Duration) {
	t.Helper()

	if _, err := pool.Exec(t.Context(), `update tandem.source_lease set renewed_at = renewed_at - $1::interval, until = until - $1::interval`, by); err != nil {
		t.Fatal(err)
	}
}

func TestOneReplicaOfASourceHasTheLease(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := ledger.NewLeases(pool, "east")
	one := acquire(t, leases, first, true, 1, ledger.Holder{})
	acquire(t, leases, second, true, 0, first)
	acquire(t, ledger.NewLeases(pool, "west"), second, true, 1, ledger.Holder{}) // another cluster's
	if err := leases.Renew(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}

	// It ends at once when it is released, and after a time when it is not renewed.
	if err := leases.Release(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}
	two := acquire(t, leases, second, false, 2, first)
	acquire(t, leases, first, false, 0, second)
	age(t, pool, ledger.LeaseExpires-time.Second)
	acquire(t, leases, first, false, 0, second)
	age(t, pool, time.Second)
	three := acquire(t, leases, first, false, 3, second)
	for _, lease := range []ledger.Lease{one, two} {
		if err := leases.Renew(t.Context(), "orders", lease); !errors.Is(err, ledger.ErrLeaseLost) {
			t.Errorf("epoch %d was renewed: %v", lease.Epoch, err)
		}
		if err := leases.Release(t.Context(), "orders", lease); !errors.Is(err, ledger.ErrLeaseLost) {
			t.Errorf("epoch %d was released: %v", lease.Epoch, err)
		}
	}
	acquire(t, leases, second, false, 0, first)

	// One that has expired and that no replica has taken is renewed.
	age(t, pool, time.Hour)
	if err := leases.Renew(t.Context(), "orders", three); err != nil {
		t.Error(err)
	}
	acquire(t, leases, second, false, 0, first)
}

func TestAReplicaThatIsStartedAgainTakesItsLeaseAtOnce(t *testing.T) {
	t.Parallel()

	leases := ledger.NewLeases(sinktest.NewDatabase(t), "east")
	acquire(t, leases, first, true, 1, ledger.Holder{})
	acquire(t, leases, first, true, 2, first)
	acquire(t, leases, first, false, 0, first) // the process before it, which resumes
}

func TestAnotherSiteIsRefusedUntilTheFirstOneIsLongGone(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := ledger.NewLeases(pool, "east")
	one := acquire(t, leases, first, true, 1, ledger.Holder{})
	acquire(t, leases, abroad, true, 0, first)
	if err := leases.Release(t.Context(), "orders", one); err != nil {
		t.Fatal(err)
	}
	acquire(t, leases, abroad, true, 0, first) // between two processes of a rollout
	age(t, pool, ledger.SiteExpires-time.Minute)
	acquire(t, leases, abroad, true, 0, first)
	age(t, pool, time.Minute)
	acquire(t, leases, abroad, true, 2, first) // the cluster has moved
	acquire(t, leases, first, true, 0, abroad)
}

func TestOfReplicasThatAcquireTheLeaseAtOnceOneGetsIt(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := ledger.NewLeases(pool, "east")
	for round := range 20 {
		var wg sync.WaitGroup
		got := make([]ledger.Lease, 6)
		for i := range got {
			wg.Go(func() {
				lease, _, err := leases.Acquire(t.Context(), "orders", ledger.Holder{Site: "here", Replica: fmt.Sprint(i)}, true)
				if err != nil {
					t.Error(err)
				}
				got[i] = lease
			})
		}
		wg.Wait()
		var held []ledger.Lease
		for _, lease := range got {
			if lease.Epoch > 0 {
				held = append(held, lease)
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

func TestWhatWasBegunInAnEarlierEpochStoresNothing(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	leases := ledger.NewLeases(pool, "east")
	one := acquire(t, leases, first, true, 1, ledger.Holder{})
	row := ledger.CheckpointUpdate{Epoch: "e1", Floor: 7, Head: 9, Hedge: "0"}
	save := func(lease ledger.Lease, last ledger.Checkpoint, want bool) ledger.Checkpoint {
		t.Helper()
		now, ok, err := ledger.NewCheckpoints(pool, "east").With(lease).Save(t.Context(), "orders", "EVENTS", row, last)
		if err != nil || ok != want {
			t.Fatalf("epoch %d saved %t, %v; want %t", lease.Epoch, ok, err, want)
		}
		return now
	}
	attempts := func(lease ledger.Lease, n int) {
		t.Helper()
		if err := ledger.NewAttempts(pool, "east").With(lease).Save(t.Context(), "orders", "EVENTS", "e1", []ledger.EventAttempts{{Sequence: 8, Attempts: n}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	store := func(lease ledger.Lease, id string) error {
		stored := ledger.StoredEvent{Subject: "a", Source: "/s", ID: id, Stream: "EVENTS", Sequence: 8, Arrived: time.Now(), Event: []byte("{}")}
		_, err := ledger.NewBlocked(pool, "east").With(lease).Store(t.Context(), "orders", []ledger.StoredEvent{stored})
		return err
	}
	saved := save(one, ledger.Checkpoint{}, true)
	attempts(one, 1)
	if err := store(one, "1"); err != nil {
		t.Fatal(err)
	}

	two := acquire(t, leases, first, true, 2, first)
	row.Floor = 8
	save(one, saved, false)
	attempts(one, 2)
	if err := store(one, "2"); !errors.Is(err, ledger.ErrLeaseLost) {
		t.Errorf("stored an event in an earlier epoch: %v", err)
	}
	row.Rewind = true
	save(one, saved, false)
	if n := sinktest.Query[int](t, pool, `select (select sum(tries) from tandem.tries) * 100 + (select count(*) from tandem.blocked_event) * 10 + (select sum(floor) from tandem.progress)`); n != 117 {
		t.Errorf("attempts, stored events and floor are %d, want 117", n)
	}
	row.Rewind = false
	save(two, saved, true)
	attempts(two, 3)
	if err := store(two, "2"); err != nil {
		t.Error(err)
	}
}
