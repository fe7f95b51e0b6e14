package sinkwriter_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// lag stops replication to the standby.
func lag(t *testing.T, r *devcluster.Replicated) {
	t.Helper()
	if err := r.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.StopReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// gate is a publisher that blocks until it is opened.
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
	r, pool := sinktest.NewReplicated(t)
	g := gate{waits: make(chan struct{}, 1), open: make(chan struct{})}
	// The survivor outlives the primary. The rows that it committed are lost with the
	// primary.
	survivor := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Publisher: g})
	lag(t, r)
	if _, err := survivor.Commit(t.Context(), sinktest.Order("o-1", 1)); err != nil {
		t.Fatal(err)
	}
	<-g.waits
	sinktest.FailOver(t, r, pool)
	if n := sinktest.Query[int](t, pool, `select count(*) from tandem.ledger`); n != 0 {
		t.Fatalf("the new primary has %d events, want none", n)
	}

	// Another writer commits another event, and ends before the event's output is
	// published.
	other := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	receipt, err := other.Commit(t.Context(), sinktest.Order("o-2", 1))
	if err != nil || !receipt.Won {
		t.Fatalf("receipt %+v, %v", receipt, err)
	}

	// The survivor has published, and deletes the lost row.
	close(g.open)
	if err := survivor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sinktest.Query[int](t, pool, `select count(*) from tandem.outbox_event where event ->> 'subject' = 'o-2'`); got != 1 {
		t.Errorf("the unpublished output is %d times in the outbox, want once", got)
	}
}

func TestWhatIsAnsweredAfterAFailoverIsThere(t *testing.T) {
	t.Parallel()
	r, pool := sinktest.NewReplicated(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})
	lag(t, r)

	// Many callers, some of which wait for an answer whenever the primary is
	// lost.
	var promoted atomic.Bool
	var n atomic.Int64
	var mu sync.Mutex
	var before, after []string
	var callers sync.WaitGroup
	ended := make(chan struct{})
	for range 50 {
		callers.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				id := fmt.Sprintf("o-%d", n.Add(1))
				if _, err := w.Commit(t.Context(), sinktest.Order(id, 1)); err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				if promoted.Load() {
					after = append(after, id)
				} else {
					before = append(before, id)
				}
				mu.Unlock()
			}
		})
	}
	answers := func(list *[]string) int {
		mu.Lock()
		defer mu.Unlock()
		return len(*list)
	}
	sinktest.Eventually(t, "200 events are answered", func() bool { return answers(&before) > 200 })
	r.LosePrimary()
	// All its answers arrive: on its only connection the writer has an attempt without an
	// answer, and its callers have received all earlier answers.
	retries := w.Stats().Retries
	sinktest.Eventually(t, "the writer notices", func() bool { return w.Stats().Retries > retries })
	sinktest.Eventually(t, "its callers have their answers", func() bool {
		stats := w.Stats()
		return int64(answers(&before)) == stats.Won+stats.Lost
	})
	mu.Lock()
	promoted.Store(true)
	mu.Unlock()
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	sinktest.Eventually(t, "200 events are answered after the failover", func() bool { return answers(&after) > 200 })
	close(ended)
	callers.Wait()

	pool.Reset()
	const missing = `select count(*) from unnest($1::text[]) as u(id) where not exists (select from orders o where o.id = u.id)
		or not exists (select from tandem.ledger l where l.key = tandem.key('orders', '/test', u.id))`
	if lost := sinktest.Query[int](t, pool, missing, before); lost == 0 {
		t.Error("the failover has lost nothing: there is nothing to see here")
	}
	if lost := sinktest.Query[int](t, pool, missing, after); lost != 0 {
		t.Errorf("%d of %d events are not there though they were answered after the primary was lost", lost, len(after))
	}
	if got := sinktest.Query[string](t, pool, `select orders || ' ' || (select count(*) from orders) from totals`); got != fmt.Sprintf("%[1]d %[1]d", sinktest.Query[int](t, pool, `select count(*) from tandem.ledger`)) {
		t.Errorf("counter and rows: %s, and not as many in the ledger", got)
	}
}
