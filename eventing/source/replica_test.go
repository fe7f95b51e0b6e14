package source_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

// replicas are processes of one source that share a lease in a database.
type replicas struct {
	server   *natstest.Server
	function *function
	progress *progress
	leases   *lease.Leases
	update   func(t *testing.T, set string) // updates the lease
	epoch    func(t *testing.T) int
	sink     string
	cfg      source.Config
}

func newReplicas(t *testing.T) *replicas {
	t.Helper()

	f, pool := newFunction(t), sinktest.NewDatabase(t)
	return &replicas{
		update: func(t *testing.T, set string) {
			t.Helper()

			if _, err := pool.Exec(t.Context(), "update tandem.source_lease set "+set); err != nil {
				t.Fatal(err)
			}
		},
		epoch: func(t *testing.T) int {
			t.Helper()

			return sinktest.Query[int](t, pool, `select epoch from tandem.source_lease`)
		},
		server: natstest.Start(t), function: f, progress: &progress{}, leases: lease.New(pool, "west"),
		sink: f.url(), cfg: source.Config{Ledger: &testLedger{done: map[string]bool{}}},
	}
}

func (w *replicas) publish(t *testing.T, first, n int) {
	t.Helper()

	eventtest.Publish(t, w.server, "EVENTS", first, n)
}

// oneReplica is a replica that runs.
type oneReplica struct {
	*source.Replica

	failing atomic.Bool // the database is unreachable
	stop    func()
}

// leases is the database's Leases, as seen by one replica.
type leases struct {
	*lease.Leases
	replica *oneReplica
}

var errAway = errors.New("the database is unavailable")

func (l leases) Acquire(ctx context.Context, function string, as lease.Holder, restarted bool) (lease.Lease, lease.Holder, error) {
	if l.replica.failing.Load() {
		return lease.Lease{}, lease.Holder{}, errAway
	}
	return l.Leases.Acquire(ctx, function, as, restarted)
}

func (l leases) Renew(ctx context.Context, function string, held lease.Lease) error {
	if l.replica.failing.Load() {
		return errAway
	}
	return l.Leases.Renew(ctx, function, held)
}

// start starts a replica at a site.
func (w *replicas) start(t *testing.T, site, name string) *oneReplica {
	t.Helper()

	r := &oneReplica{}
	conn := eventtest.Connect(t, w.server, nil)
	sender := eventtest.NewSender(t, w.sink, w.sink+"/dead-letters")
	activate := func(_ lease.Lease, until func() time.Time) (*source.Source, error) {
		stream, err := jetstream.NewStream(conn, "west", "flights", jetstream.StreamConfig{Name: "EVENTS"})
		if err != nil {
			return nil, err
		}
		cfg := w.cfg
		cfg.Function, cfg.SaveInterval, cfg.ActiveUntil = "flights", 20*time.Millisecond, until
		return source.New(eventing.StreamList{stream}, sender, w.progress, cfg)
	}
	r.Replica = source.NewReplica(leases{w.leases, r}, activate, sender.Probe, source.ReplicaConfig{
		Cluster: "west", Function: "flights", Holder: lease.Holder{Site: site, Replica: name},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	r.stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Error("the replica did not end within a minute")
		}
	}
	t.Cleanup(r.stop)
	return r
}

func (r *oneReplica) isActive(t *testing.T, active bool) {
	t.Helper()

	eventtest.Eventually(t, "the replica is active, or not", func() bool { return r.Active() == active })
}

func TestOneReplicaDeliversAndTheNextTakesOver(t *testing.T) {
	t.Parallel()

	w := newReplicas(t)
	w.publish(t, 1, 100)
	first := w.start(t, "here", "first")
	first.isActive(t, true)
	second := w.start(t, "here", "second")
	w.function.waitFor(t, 100)
	eventtest.Eventually(t, "the second one stands by", func() bool {
		return second.Status() == "standing by: the active replica is first, this one is second"
	})
	if err := second.Ready(); err != nil || second.Active() {
		t.Errorf("the replica that stands by is not ready: %v, or active: %t", err, second.Active())
	}

	eventtest.Eventually(t, "progress is saved", func() bool { return w.progress.floor("EVENTS") == 101 })
	first.stop()
	second.isActive(t, true)
	w.publish(t, 101, 100)
	w.function.waitFor(t, 200)
	eventtest.Eventually(t, "progress is saved", func() bool { return w.progress.floor("EVENTS") == 201 })
	if n := w.function.repeats(); n > 0 {
		t.Errorf("%d events were delivered again after a handover in good order", n)
	}

	// A process that is restarted under its name takes over at once. The former process, if it
	// still runs, stands by permanently.
	again := w.start(t, "here", "second")
	again.isActive(t, true)
	second.isActive(t, false)
	w.publish(t, 201, 100)
	w.function.waitFor(t, 300)
	if again.Active() == second.Active() {
		t.Error("both replicas are active, or none is")
	}
}

func TestAReplicaThatLostItsLeaseStops(t *testing.T) {
	t.Parallel()

	w := newReplicas(t)
	w.publish(t, 1, 20)
	hold := make(chan struct{})
	w.function.answer(func(_ http.ResponseWriter, _ *http.Request, e event.Event) int {
		if e.ID() == "test-000007" {
			<-hold
		}
		return http.StatusNoContent
	})
	first := w.start(t, "here", "first")
	eventtest.Eventually(t, "all but one are acknowledged", func() bool {
		return w.function.count() == 19 && w.progress.floor("EVENTS") == 7
	})
	w.update(t, "replica = 'other', epoch = epoch + 1, until = clock_timestamp() + interval '1 hour'")
	first.isActive(t, false)
	close(hold) // its answer arrives after that
	w.publish(t, 21, 20)
	eventtest.Eventually(t, "it stands by", func() bool { return strings.HasPrefix(first.Status(), "standing by: the active replica is other") })
	if n, floor := w.function.count(), w.progress.floor("EVENTS"); n > 20 || floor != 7 {
		t.Errorf("%d events were delivered, and the floor is %d, although another replica has the lease", n, floor)
	}

	w.update(t, "until = clock_timestamp()")
	first.isActive(t, true)
	w.function.waitFor(t, 40)
	eventtest.Eventually(t, "all are acknowledged", func() bool { return w.progress.floor("EVENTS") == 41 })
}

func TestAReplicaWhoseLeaseCannotBeRenewedPausesAndGoesOn(t *testing.T) {
	t.Parallel()

	w := newReplicas(t)
	w.publish(t, 1, 20)
	first := w.start(t, "here", "first")
	eventtest.Eventually(t, "all are acknowledged", func() bool { return w.progress.floor("EVENTS") == 21 })
	first.failing.Store(true)
	first.isActive(t, false)
	if err := first.Ready(); err == nil || !strings.Contains(err.Error(), "could not be renewed") {
		t.Errorf("a replica that pauses is ready: %v", err)
	}
	w.publish(t, 21, 20)
	time.Sleep(2 * time.Second) // longer than a pull lasts
	if n := w.function.count(); n != 20 {
		t.Errorf("%d events were delivered while it paused, want none", n-20)
	}
	first.failing.Store(false)
	w.function.waitFor(t, 40)
	eventtest.Eventually(t, "all are acknowledged", func() bool { return w.progress.floor("EVENTS") == 41 })
	if epoch := w.epoch(t); epoch != 1 {
		t.Errorf("epoch %d: it has acquired the lease once more", epoch)
	}
}

func TestAnotherSiteWithTheNameOfAClusterIsRefused(t *testing.T) {
	t.Parallel()

	w := newReplicas(t)
	w.publish(t, 1, 20)
	here := w.start(t, "here", "first")
	here.isActive(t, true)
	there := w.start(t, "there", "first")
	eventtest.Eventually(t, "it is refused", func() bool {
		err := there.Ready()
		return err != nil && strings.Contains(err.Error(), "site here") && strings.Contains(err.Error(), "site there") && strings.Contains(err.Error(), "cluster name west")
	})
	w.function.waitFor(t, 20)
	here.stop() // as in a rollout
	time.Sleep(time.Second)
	if there.Active() {
		t.Error("it took over from another site at once")
	}
	again := w.start(t, "here", "second")
	again.isActive(t, true)
}

// TestReplicasKeepTheOrderOfASubject makes a replica take over repeatedly: from one that
// ends, and from one that is only considered dead.
func TestReplicasKeepTheOrderOfASubject(t *testing.T) {
	t.Parallel()

	const total = 1500
	w := newReplicas(t)
	j := newJournal(total)
	w.sink = j.functionOf(t, "west", func(n int) int {
		if n%50 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
		return http.StatusNoContent
	})
	w.cfg = source.Config{Ordered: true, Blocked: verdictsOf{"west", j}, Ledger: j, InFlight: 32}
	publishSubjects(t, w.server, 1, total)
	active := w.start(t, "here", "replica-0")
	active.isActive(t, true)
	committed := func() int {
		n, _, wrong := j.done()
		if len(wrong) > 0 {
			t.Fatalf("%d times out of order: %s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "; "))
		}
		return n
	}
	progress := func() {
		t.Helper()

		at := committed()
		eventtest.Eventually(t, "events are committed", func() bool { n := committed(); return n > at+50 || n == total-1 })
	}
	for takeover := 1; takeover <= 8; takeover++ {
		progress()
		next := w.start(t, "here", fmt.Sprintf("replica-%d", takeover))
		if takeover%2 == 0 {
			active.stop()
		} else { // it cannot renew its lease, and continues for up to two seconds
			active.failing.Store(true)
			w.update(t, "until = clock_timestamp()")
		}
		next.isActive(t, true)
		progress()
		active.stop()
		active = next
	}
	eventtest.Eventually(t, "all are committed and acknowledged", func() bool {
		return committed() == total-1 && w.progress.floor("EVENTS") == total
	})
}
