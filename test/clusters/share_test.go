package clusters_test

import (
	"math"
	"slices"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// delivered returns how many events a cluster's function has answered with 2xx.
func delivered(t *testing.T, c *devcluster.Cluster) int64 {
	t.Helper()
	n, _ := metric(t, c.MetricsURL(), "tandem_source_delivered_total")
	return int64(n)
}

func TestTwoClustersShareTheEventsUntilOneOfThemDies(t *testing.T) {
	t.Parallel()

	env := []string{"TANDEM_HEDGE=share"}
	w := newWorldWith(t, 500, env, env)
	east, west := w.Clusters()[0], w.Clusters()[1]
	const first, events = 1500, 3000 // at first neither knows the other
	w.waitFor(t, first)
	e, d := delivered(t, east), delivered(t, west)
	w.waitFor(t, first+events)
	e, d = delivered(t, east)-e, delivered(t, west)-d
	t.Logf("of %d events, %d were computed by one cluster and %d by the other", events, e, d)
	// A busy machine delays commits beyond the delay.
	if e < events/4 || d < events/4 || e+d > events*3/2 {
		t.Errorf("%d and %d events were computed, want about half of %d each", e, d, events)
	}

	died := time.Now()
	east.Vanish()
	w.more(t, 3*500)
	w.finish(t, west)
	took := w.took(t, died)
	at := func(quantile float64) time.Duration {
		return took[min(int(math.Ceil(quantile*float64(len(took)))), len(took)-1)].Round(time.Millisecond)
	}
	t.Logf("of %d events that came in the 3 s after a cluster died: p50 %s, p99 %s, p99.9 %s", len(took), at(0.5), at(0.99), at(0.999))
}

// took returns, sorted, the times from storage in the stream to commit of the events that
// were stored within 3 s after from.
func (w *world) took(t *testing.T, from time.Time) (took []time.Duration) {
	t.Helper()
	committed := w.committed(t, `select key, committed_at from tandem.ledger`)
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	inOrder(t, js, int(w.supply.total()), func(m natsjs.Msg) struct{} {
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		at := committed[ledger.NewKey("flights", m.Headers().Get("ce-source"), m.Headers().Get("ce-id"))]
		if stored := meta.Timestamp; stored.After(from) && stored.Before(from.Add(3*time.Second)) {
			took = append(took, at.Sub(stored))
		}
		return struct{}{}
	})
	if len(took) == 0 {
		t.Fatal("no event came in the 3 s after a cluster died: the feed was over")
	}
	slices.Sort(took)
	return took
}
