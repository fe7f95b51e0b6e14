package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

func TestWhatWasBegunInAnEarlierEpochStoresNothing(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	acquire := func() lease.Lease {
		held, _, err := lease.New(pool, "east").Acquire(t.Context(), "orders", lease.Holder{Site: "here", Replica: "first"}, true)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	one := acquire()
	row := ledger.CheckpointUpdate{Epoch: "e1", Floor: 7, Head: 9, Hedge: "0"}
	save := func(held lease.Lease, last ledger.Checkpoint, want bool) ledger.Checkpoint {
		t.Helper()
		now, ok, err := ledger.NewCheckpoints(pool, "east").With(held).Save(t.Context(), "orders", "EVENTS", row, last)
		if err != nil || ok != want {
			t.Fatalf("epoch %d saved %t, %v; want %t", held.Epoch, ok, err, want)
		}
		return now
	}
	attempts := func(held lease.Lease, n int) {
		t.Helper()
		if err := ledger.NewAttempts(pool, "east").With(held).Save(t.Context(), "orders", "EVENTS", "e1", []ledger.EventAttempts{{Sequence: 8, Attempts: n}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	store := func(held lease.Lease, id string) error {
		stored := ledger.StoredEvent{Subject: "a", Source: "/s", ID: id, Stream: "EVENTS", Sequence: 8, Arrived: time.Now(), Event: []byte("{}")}
		_, err := ledger.NewBlocked(pool, "east").With(held).Store(t.Context(), "orders", []ledger.StoredEvent{stored})
		return err
	}
	saved := save(one, ledger.Checkpoint{}, true)
	attempts(one, 1)
	if err := store(one, "1"); err != nil {
		t.Fatal(err)
	}

	two := acquire()
	row.Floor = 8
	save(one, saved, false)
	attempts(one, 2)
	if err := store(one, "2"); !errors.Is(err, lease.ErrLost) {
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
