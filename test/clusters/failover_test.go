package clusters_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/hack/feed"
)

// failedOver starts two clusters on a primary with a standby, lets the standby lag
// by that many events, kills the primary, calls meanwhile, and promotes the
// standby. It fails if no cluster had acknowledged events that are lost then.
func failedOver(t *testing.T, west []string, behind int64, meanwhile func(*world)) *world {
	t.Helper()
	w := newWorldOf(t, 2000, devcluster.Config{Standby: true, Clusters: eastAndWest(nil, west)})
	r := w.Replicated
	const first = 500
	w.waitFor(t, first)
	if err := r.StopReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
	// However long that took, that many events are acknowledged that the standby
	// does not have.
	survives := w.committedInStandby(t)
	w.waitFor(t, min(survives+behind, feed.Flights))
	var acknowledged int64
	pollDown(t, "nobody acknowledges", func(ctx context.Context) int64 {
		acknowledged = max(acknowledged, w.acknowledged(ctx, t))
		return survives + behind/2 - acknowledged
	})

	r.LosePrimary()
	acknowledged = max(acknowledged, w.acknowledged(t.Context(), t))
	meanwhile(w)
	// Counted before the standby is promoted: from then on clusters commit again.
	survived := w.committedInStandby(t)
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Pool.Reset()
	t.Logf("%d events were acknowledged when the primary was lost, and %d are in the ledger of the standby", acknowledged, survived)
	if survived+100 > acknowledged {
		t.Fatal("the failover has lost next to nothing: there is nothing to see here")
	}
	return w
}

// committedInStandby returns how many events the standby's ledger has.
func (w *world) committedInStandby(t *testing.T) (n int64) {
	t.Helper()
	standby, err := pgx.Connect(t.Context(), w.Replicated.Standby().URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = standby.Close(t.Context()) }()
	if err := standby.QueryRow(t.Context(), `select count(*) from tandem.ledger`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// acknowledged returns the floor of the foremost cluster: it has acknowledged all
// messages below it.
func (w *world) acknowledged(ctx context.Context, t *testing.T) (floor int64) {
	t.Helper()
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range w.Clusters() {
		if consumer, err := js.Consumer(ctx, inputStream, "tandem-"+c.Name()+"-"+c.FunctionName()); err == nil {
			floor = max(floor, int64(consumer.CachedInfo().AckFloor.Stream))
		}
	}
	return floor
}

// rewound waits until a cluster's source has restarted at the first lost event.
func (w *world) rewound(t *testing.T, c *devcluster.Cluster) {
	t.Helper()
	w.poll(t, c.Name()+" does not restart at the first lost event", func(context.Context) bool {
		log, err := os.ReadFile(c.Source.LogFile())
		return err == nil && strings.Contains(string(log), "the database may have lost commits")
	})
}

func killed(t *testing.T, p *supervisor.Process) {
	t.Helper()
	if err := p.Kill(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

func TestADatabaseFailoverThatLosesCommitsLosesNothing(t *testing.T) {
	t.Parallel()
	w := failedOver(t, nil, 2000, func(w *world) {
		killed(t, w.Clusters()[0].Source)
		killed(t, w.Clusters()[1].Function)
	})
	for _, c := range w.Clusters() {
		w.rewound(t, c)
	}
	w.finish(t, w.Clusters()...)
}

func TestADatabaseFailoverAndBackLosesNothing(t *testing.T) {
	long(t)
	t.Parallel()
	w := newWorldOf(t, 1000, devcluster.Config{Standby: true, Clusters: eastAndWest(nil, nil)})
	r := w.Replicated
	w.waitFor(t, 1000)
	if err := r.StopReplication(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The floors of the former primary are above those of the primary in between.
	w.waitFor(t, 3000)
	former := w.handled(t)
	r.LosePrimary()
	if err := r.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Pool.Reset()
	w.poll(t, "the new primary commits", func(context.Context) bool { return w.handled(t) > former+500 })
	between := w.handled(t)
	acknowledged := w.acknowledged(t.Context(), t)
	if err := r.FailBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Pool.Reset()
	t.Logf("%d events were in the ledger when the first primary was lost, %d when the second was; %d were acknowledged", former, between, acknowledged)
	w.finish(t, w.Clusters()...)
}

// handled returns how many events the ledger of the primary has; 0 if it does not answer.
func (w *world) handled(t *testing.T) (n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), tryTimeout)
	defer cancel()
	if err := w.Pool.QueryRow(ctx, `select count(*) from tandem.ledger`).Scan(&n); err != nil {
		return 0
	}
	return n
}

func TestADatabaseFailoverInHedgeModeLosesNothing(t *testing.T) {
	long(t)
	t.Parallel()
	w := failedOver(t, []string{"TANDEM_HEDGE=500ms"}, 2000, func(*world) {})
	for _, c := range w.Clusters() {
		w.rewound(t, c)
	}
	w.finish(t, w.Clusters()...)
}
