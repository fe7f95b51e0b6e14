package clusters_test

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

const (
	// healthyRate is the number of harmless events per second.
	healthyRate = 200

	// restartDelay is how long a function that has ended is down, in addition to
	// its start.
	restartDelay = 2 * time.Second

	// maxDelay is the maximum delay of a healthy event, on a machine without other load.
	maxDelay = 5 * time.Second

	// calmDelay is the maximum delay of a healthy event while no event does harm, and
	// startTime the time that a function takes to start.
	calmDelay = 100 * time.Millisecond
	startTime = 500 * time.Millisecond
)

// harmful is built once for all tests.
var harmful = sync.OnceValues(func() (devcluster.Programs, error) {
	programs, err := programs()
	if err != nil {
		return programs, err
	}
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return programs, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	programs.Function = filepath.Join(dir, "harmful")
	out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", programs.Function, "github.com/tandem-fn/tandem/test/deployment/harmful").CombinedOutput()
	if err != nil {
		return programs, fmt.Errorf("build the harmful function: %w: %s", err, out)
	}
	return programs, nil
})

// harmWorld is two clusters that receive healthy events all the time.
type harmWorld struct {
	*devcluster.Deployment

	publisher *jetstream.Publisher
	sent      int

	stopWatching func()
	downs        atomic.Int64 // how often both functions were down at the same time
	calm         time.Duration
	longest      [2]time.Duration // during which each function was not ready
}

// startHarm starts clusters of the harmful function.
func startHarm(t *testing.T, env ...string) *harmWorld {
	t.Helper()
	programs, err := harmful()
	if err != nil {
		t.Fatal(err)
	}
	cfg := devcluster.Config{
		Programs: programs, Postgres: &devcluster.PostgresConfig{}, NATS: &devcluster.NATSConfig{}, RestartDelay: restartDelay,
		Prepare: func(ctx context.Context, databaseURL string) error {
			return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: "harm", Files: harm.Function().Migrations})
		},
	}
	for _, name := range []string{"east", "west"} {
		cfg.Clusters = append(cfg.Clusters, devcluster.ClusterConfig{Name: name, Function: "harm", Env: env})
	}
	w := &harmWorld{}
	w.Deployment, _ = start(t, cfg)
	if w.publisher, err = jetstream.NewPublisher(w.Conn, jetstream.StreamConfig{Name: inputStream}); err != nil {
		t.Fatal(err)
	}
	watching, stop := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	watchers.Go(func() { w.watch(watching) })
	for i := range w.longest {
		watchers.Go(func() { w.watchStarts(watching, i) })
	}
	w.stopWatching = func() {
		stop()
		watchers.Wait()
	}
	t.Cleanup(w.stopWatching)
	return w
}

// feedInPeace sends healthy events for a second without harmful ones, and measures their
// delay.
func (w *harmWorld) feedInPeace(t *testing.T) {
	t.Helper()
	w.feedUntil(t, "", after(time.Second))
	w.calm = w.latest(t)
}

// watchStarts measures the longest time that a function is not ready.
func (w *harmWorld) watchStarts(ctx context.Context, i int) {
	c := w.Clusters()[i]
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for ready := time.Now(); ; {
		if answers(ctx, c.FunctionURL()+"/health/readiness") {
			w.longest[i] = max(w.longest[i], time.Since(ready))
			ready = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode == http.StatusOK
}

// latest waits until every healthy event is committed, and returns the longest delay.
func (w *harmWorld) latest(t *testing.T) time.Duration {
	t.Helper()
	pollDown(t, "healthy events are missing", func(ctx context.Context) int64 {
		var n int
		if err := w.Pool.QueryRow(ctx, `select count(*) from harm_events`).Scan(&n); err != nil {
			return unknown
		}
		if n > w.sent {
			t.Fatalf("%d events are committed, and %d healthy ones were sent", n, w.sent)
		}
		return int64(w.sent - n)
	})
	var late float64
	if err := w.Pool.QueryRow(t.Context(), `select coalesce(extract(epoch from max(committed_at - sent_at)), 0) from harm_events`).Scan(&late); err != nil {
		t.Fatal(err)
	}
	return time.Duration(late * float64(time.Second))
}

// allowed returns the allowed delay of a healthy event. The extra time that a busy machine
// takes to commit an event without harm, and to start a function, does not count against the
// harmful event. An event that waited for both functions to start is committed after about ten
// of these steps.
func (w *harmWorld) allowed() time.Duration {
	allowed := maxDelay + 10*max(0, w.calm-calmDelay)
	for _, longest := range w.longest {
		allowed += max(0, longest-restartDelay-startTime)
	}
	return allowed
}

// watch counts how often no function is running.
func (w *harmWorld) watch(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for down := false; ; {
		before := down
		down = w.Clusters()[0].Function.Pid() == 0 && w.Clusters()[1].Function.Pid() == 0
		if down && !before {
			w.downs.Add(1)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// send publishes events.
func (w *harmWorld) send(t *testing.T, events ...event.Event) {
	t.Helper()
	publish(t, w.publisher, events...)
}

// publish stores events, and retries after an error: the stream deduplicates
// them.
func publish(t *testing.T, publisher *jetstream.Publisher, events ...event.Event) {
	t.Helper()
	poll(t, "events are not stored", func(ctx context.Context) bool {
		err := publisher.Publish(ctx, events)
		if err != nil {
			t.Logf("publish %d events: %v", len(events), err)
		}
		return err == nil
	})
}

func harmEvent(t *testing.T, id string, kind harm.Kind) event.Event {
	t.Helper()
	e := event.New()
	e.SetID(id)
	e.SetSource("/test/harm")
	e.SetType(harm.Type)
	e.SetTime(time.Now())
	if err := e.SetData(event.ApplicationJSON, harm.Data{Kind: kind}); err != nil {
		t.Fatal(err)
	}
	return e
}

// feedUntil sends healthy events until so returns true.
func (w *harmWorld) feedUntil(t *testing.T, otherwise string, so func(context.Context) bool) {
	t.Helper()
	const portion = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(portion)
	defer tick.Stop()
	for begin, sent := time.Now(), 0; !so(ctx); {
		var events []event.Event
		for due := int(time.Since(begin).Seconds() * healthyRate); sent < due; sent++ {
			w.sent++
			events = append(events, harmEvent(t, fmt.Sprintf("healthy-%06d", w.sent), harm.None))
		}
		if len(events) > 0 {
			w.send(t, events...)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("gave up after %v: %s", timeout, otherwise)
		}
	}
}

// dead returns the reasons of an event's dead letters, by cluster.
func (w *harmWorld) dead(ctx context.Context, id string) map[string]string {
	reasons := map[string]string{}
	rows, err := w.Pool.Query(ctx, `select cluster, reason from tandem.dead_letter where id = $1`, id)
	if err != nil {
		return reasons
	}
	defer rows.Close()
	for rows.Next() {
		var cluster, reason string
		if rows.Scan(&cluster, &reason) == nil {
			reasons[cluster] = reason
		}
	}
	return reasons
}

// checkHealthy checks that every healthy event is committed in time, and that only the
// harmful events are dead letters.
func (w *harmWorld) checkHealthy(t *testing.T, harmful int) {
	t.Helper()
	late := w.latest(t)
	w.stopWatching()
	allowed := w.allowed()
	t.Logf("%d healthy events, the latest after %v, before the harm %v; east restarted %d times, west %d, and they were not ready for at most %v; both were down together %d times",
		w.sent, late, w.calm, w.Clusters()[0].Function.Restarts(), w.Clusters()[1].Function.Restarts(), w.longest, w.downs.Load())
	if late > allowed {
		t.Errorf("a healthy event was committed after %v, want at most %v", late, allowed)
	}
	var letters int
	if err := w.Pool.QueryRow(t.Context(), `select count(distinct id) from tandem.dead_letter`).Scan(&letters); err != nil || letters != harmful {
		t.Errorf("%d events are dead, %v; want %d", letters, err, harmful)
	}
}

func TestAnEventThatEndsTheFunctionHurtsOnlyItself(t *testing.T) {
	t.Parallel()
	kinds := []harm.Kind{harm.Exit, harm.Panic, harm.Stack, harm.Memory}
	if testing.Short() {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := startHarm(t)
			w.feedInPeace(t)
			w.send(t, harmEvent(t, "bad", kind))
			w.feedUntil(t, "the event is not dead in both clusters", func(ctx context.Context) bool { return len(w.dead(ctx, "bad")) == 2 })
			w.feedUntil(t, "", after(time.Second))
			w.checkHealthy(t, 1)
			for cluster, reason := range w.dead(t.Context(), "bad") {
				t.Logf("%s: %s", cluster, reason)
				if !strings.Contains(reason, "process ended") {
					t.Errorf("the dead letter of %s has the reason %q, want that the process ended", cluster, reason)
				}
			}
			if n := w.downs.Load(); n > 1 {
				t.Errorf("both functions were down together %d times, want at most once", n)
			}
		})
	}
}

// after returns a condition that becomes true after a time.
func after(d time.Duration) func(context.Context) bool {
	until := time.Now().Add(d)
	return func(context.Context) bool { return time.Now().After(until) }
}

func TestAnEventThatEndsTheFunctionIsDeadAlsoIfNothingElseComes(t *testing.T) {
	long(t)
	t.Parallel()
	w := startHarm(t)
	w.feedInPeace(t)
	w.send(t, harmEvent(t, "bad", harm.Exit))
	poll(t, "the event is not dead in both clusters", func(ctx context.Context) bool { return len(w.dead(ctx, "bad")) == 2 })
	w.checkHealthy(t, 1)
}

func TestEventsThatHangHurtOnlyThemselves(t *testing.T) {
	long(t)
	t.Parallel()
	const tryFor = time.Minute
	for kind, n := range map[harm.Kind]int{harm.Loop: 1, harm.Hang: 100} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := startHarm(t, "TANDEM_TRY_FOR="+tryFor.String())
			w.feedInPeace(t)
			begun := time.Now()
			for i := range n {
				w.send(t, harmEvent(t, fmt.Sprintf("bad-%d", i), kind))
			}
			w.feedUntil(t, "the events are not dead in both clusters", func(ctx context.Context) bool {
				var letters int
				err := w.Pool.QueryRow(ctx, `select count(*) from tandem.dead_letter where reason like '%not done%'`).Scan(&letters)
				return err == nil && letters == 2*n
			})
			// 20 s until the first failure, then the time, and an attempt.
			took := time.Since(begun)
			t.Logf("dead after %v", took)
			if took > tryFor+90*time.Second {
				t.Errorf("the events were dead after %v, want about %v after their first failure", took, tryFor)
			}
			w.feedUntil(t, "", after(time.Second))
			w.checkHealthy(t, n)
		})
	}
}
