package sinkwriter_test

import (
	"context"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/hack/local"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/test/pgtest"
)

// newReplicated is newDatabase on a primary that has a standby, and a pool that
// leads to whichever of both takes writes.
func newReplicated(t *testing.T) (*local.Replicated, *pgxpool.Pool) {
	t.Helper()
	r := pgtest.Replicated(t)
	if err := sinkwriter.Migrate(t.Context(), r.URL()); err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, r.URL())
	if _, err := pool.Exec(t.Context(), tablesSQL); err != nil {
		t.Fatal(err)
	}
	return r, pool
}

// failOver has the standby take the place of the primary, with what it has.
func failOver(t *testing.T, r *local.Replicated, pool *pgxpool.Pool) {
	t.Helper()
	r.LosePrimary()
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset() // or the test itself would have to try again
}

// lag has the standby get nothing more from now on.
func lag(t *testing.T, r *local.Replicated) {
	t.Helper()
	if err := r.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.StopReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// gate is a publisher that waits until it is opened.
type gate struct{ waits, open chan struct{} }

func (g gate) Publish(ctx context.Context, _ []event.Event) error {
	select {
	case g.waits <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestWhoSurvivesAFailoverDeletesNobodysOutputs(t *testing.T) {
	t.Parallel()
	r, pool := newReplicated(t)
	g := gate{waits: make(chan struct{}, 1), open: make(chan struct{})}
	// It outlives the primary, and with it goes what it committed.
	survivor := newWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: g})
	lag(t, r)
	if _, err := survivor.Commit(t.Context(), order("o-1", 1)); err != nil {
		t.Fatal(err)
	}
	<-g.waits
	failOver(t, r, pool)
	if n := query[int](t, pool, `select count(*) from tandem.ledger`); n != 0 {
		t.Fatalf("the new primary has %d events, want none", n)
	}

	// Somebody else commits another event, and ends before its output is published.
	other := newWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	receipt, err := other.Commit(t.Context(), order("o-2", 1))
	if err != nil || !receipt.Won {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}

	// The survivor has published, and deletes the row of what was lost.
	close(g.open)
	if err := survivor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, pool, `select count(*) from tandem.outbox_event where event ->> 'subject' = 'o-2'`); got != 1 {
		t.Errorf("the output that nobody has published is %d times in the outbox, want once", got)
	}
}
