package clusters_test

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const (
	inputStream = "EVENTS"

	// timeout bounds a wait without progress: the relay takes over the outputs of a
	// dead winner after 30 s, and a busy machine is slow.
	timeout = 4 * time.Minute

	// restartPause is how long a process that has ended is down, in addition to
	// its start.
	restartPause = 200 * time.Millisecond

	// tryTimeout bounds one attempt of an operation that is repeated until
	// timeout: a request that reaches a server during a change of leader is never
	// answered.
	tryTimeout = 10 * time.Second
)

// programs are built once for all tests.
var programs = sync.OnceValues(func() (devcluster.Programs, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return devcluster.Programs{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return devcluster.Build(ctx, dir, io.Discard)
})

// busy bounds the deployments that run at once, however many tests run: each has a dozen busy
// processes, and more would only slow each other down.
var busy = make(chan struct{}, 2)

// start starts a deployment that ends with the test. It sets the folder, and by default the
// programs and the migrations. The deployment counts as busy until idle is called, or the test
// ends.
func start(t *testing.T, cfg devcluster.Config) (d *devcluster.Deployment, idle func()) {
	t.Helper()
	busy <- struct{}{}
	idle = sync.OnceFunc(func() { <-busy })
	t.Cleanup(idle)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	var err error
	if cfg.Programs == (devcluster.Programs{}) {
		if cfg.Programs, err = programs(); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.Dir = pgtest.Dir(t); cfg.Prepare == nil {
		cfg.Prepare = tandem.New().Migrate
	}
	d, err = devcluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop(t.Context()) })
	t.Cleanup(func() { logProcesses(t, d) })
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return d, idle
}

// logProcesses logs the last log lines of the clusters' processes, if the test has failed.
func logProcesses(t *testing.T, d *devcluster.Deployment) {
	t.Helper()
	if !t.Failed() {
		return
	}
	for _, c := range d.Clusters() {
		for _, p := range c.Processes() {
			t.Logf("%s, %d restarts:\n%s", p.Name(), p.Restarts(), strings.Join(p.LogTail(), "\n"))
		}
	}
}

// world is a deployment with a feed of flights.
type world struct {
	*devcluster.Deployment

	idle   func()
	supply *supply
	feed   *feed.Feed
	fed    <-chan error
}

// newWorld starts clusters and feeds the flights at a rate.
func newWorld(t *testing.T, rate float64, names ...string) *world {
	t.Helper()
	cfg := devcluster.Config{}
	for _, name := range names {
		cfg.Clusters = append(cfg.Clusters, devcluster.ClusterConfig{Name: name})
	}
	return newWorldOf(t, rate, cfg)
}

// newWorldWith starts two clusters with further variables for each.
func newWorldWith(t *testing.T, rate float64, east, west []string) *world {
	t.Helper()
	return newWorldOf(t, rate, devcluster.Config{Clusters: eastAndWest(east, west)})
}

func eastAndWest(east, west []string) []devcluster.ClusterConfig {
	return []devcluster.ClusterConfig{{Name: "east", Env: east}, {Name: "west", Env: west}}
}

// newWorldOf adds PostgreSQL and NATS to the configuration.
func newWorldOf(t *testing.T, rate float64, cfg devcluster.Config) *world {
	t.Helper()
	cfg.Postgres = &devcluster.PostgresConfig{Settings: map[string]string{"max_connections": "300"}}
	cfg.NATS = &devcluster.NATSConfig{}
	cfg.RestartDelay = restartPause
	w := &world{supply: newSupply()}
	w.Deployment, w.idle = start(t, cfg)
	publisher, err := jetstream.NewPublisher(w.Conn, jetstream.StreamConfig{Name: inputStream})
	if err != nil {
		t.Fatal(err)
	}
	w.feed = feed.New(publisher, feed.Config{Rate: rate})
	w.fed = w.supply.run(t.Context(), w.feed, 0, 1)
	return w
}

// waitFor waits until that many events of the feed are stored in the stream.
func (w *world) waitFor(t *testing.T, events int64) {
	t.Helper()
	pollDown(t, "the feed is behind", func(context.Context) int64 { return events - w.feed.Published() })
}

// more waits until that many more events, or all, are stored in the stream.
func (w *world) more(t *testing.T, events int64) {
	t.Helper()
	w.waitFor(t, min(w.feed.Published()+events, feed.Flights))
}

func (w *world) poll(t *testing.T, otherwise string, so func(context.Context) bool) {
	t.Helper()
	poll(t, otherwise, so)
}

// poll waits until so returns true.
func poll(t *testing.T, otherwise string, so func(context.Context) bool) {
	t.Helper()
	pollDown(t, otherwise, func(ctx context.Context) int64 {
		if so(ctx) {
			return 0
		}
		return unknown
	})
}

// unknown is greater than any number of remaining items.
const unknown = math.MaxInt64

// pollDown waits until left returns 0, however long that takes. It fails when left has
// not decreased for timeout.
func pollDown(t *testing.T, otherwise string, left func(context.Context) int64) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	try := func() int64 {
		ctx, cancel := context.WithTimeout(t.Context(), tryTimeout)
		defer cancel()
		return left(ctx)
	}
	least, since := int64(unknown), time.Now()
	for {
		now := try()
		if now <= 0 {
			return
		}
		if now < least {
			least, since = now, time.Now()
		}
		if time.Since(since) > timeout {
			t.Fatalf("gave up after %v without progress: %s (%d left)", timeout, otherwise, least)
		}
		<-tick.C
	}
}

// finish ends the supply, waits until one of the clusters has acknowledged everything,
// and compares the result with the truth.
func (w *world) finish(t *testing.T, clusters ...*devcluster.Cluster) {
	t.Helper()
	w.supply.end()
	if err := <-w.fed; err != nil {
		t.Fatalf("feed: %v", err)
	}
	js, err := natsjs.New(w.NC)
	if err != nil {
		t.Fatal(err)
	}
	pollDown(t, "events are still under way", func(ctx context.Context) int64 {
		least := int64(unknown)
		for _, c := range clusters {
			least = min(least, unacknowledged(ctx, js, c))
		}
		return least
	})
	w.idle() // while outputs of a killed function wait for the relay
	outboxEmpties(t, w.Pool)
	w.compare(t)
}

// outboxEmpties waits until all outputs are published.
func outboxEmpties(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	box := sinkwriter.NewOutbox(pool)
	pollDown(t, "outputs are still in the outbox", func(ctx context.Context) int64 {
		n, err := box.Backlog(ctx)
		if err != nil {
			return unknown
		}
		return n
	})
}

// through reports whether a cluster has acknowledged everything.
func through(ctx context.Context, js natsjs.JetStream, c *devcluster.Cluster) bool {
	return unacknowledged(ctx, js, c) == 0
}

// unacknowledged returns how many events a cluster has not acknowledged.
func unacknowledged(ctx context.Context, js natsjs.JetStream, c *devcluster.Cluster) int64 {
	consumer, err := js.Consumer(ctx, inputStream, "tandem-"+c.Name()+"-"+c.FunctionName())
	if err != nil {
		return unknown
	}
	return notAcknowledged(consumer.CachedInfo())
}

func notAcknowledged(info *natsjs.ConsumerInfo) int64 {
	if info.Delivered.Stream == 0 {
		return unknown
	}
	return int64(info.NumPending) + int64(info.NumAckPending)
}

func (w *world) compare(t *testing.T) {
	t.Helper()
	got, err := expected.Read(t.Context(), w.Pool, w.NC)
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range got.Differences(w.supply.want) {
		t.Error(difference)
	}
	var letters int64
	if err := w.Pool.QueryRow(t.Context(), `select count(*) from tandem.dead_letter`).Scan(&letters); err != nil || letters != 0 {
		t.Errorf("%d dead letters, %v", letters, err)
	}
}

// won counts the events that a cluster won.
func (w *world) won(t *testing.T, c *devcluster.Cluster) int64 {
	t.Helper()
	return wonBy(t, w.Pool, c.Name())
}

// hasWon waits until each of the clusters has won an event.
func (w *world) hasWon(t *testing.T, clusters ...*devcluster.Cluster) {
	t.Helper()
	for _, c := range clusters {
		w.poll(t, c.Name()+" wins nothing", func(context.Context) bool { return w.won(t, c) > 0 })
	}
}

func wonBy(t *testing.T, pool *pgxpool.Pool, cluster string) (n int64) {
	t.Helper()
	if err := pool.QueryRow(t.Context(),
		`select count(*) from tandem.ledger join tandem.writer using (writer) where cluster = $1`, cluster).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// kill kills a process with SIGKILL times times; in between it is restarted and
// has a moment to work.
func (w *world) kill(t *testing.T, p *supervisor.Process, times int) {
	t.Helper()
	kill(t, p, times)
}

func kill(t *testing.T, p *supervisor.Process, times int) {
	t.Helper()
	for range times {
		poll(t, p.Name()+" does not run", func(context.Context) bool { return p.Pid() != 0 })
		before := p.Restarts()
		if err := p.Kill(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		poll(t, p.Name()+" is not started again", func(context.Context) bool { return p.Restarts() > before })
	}
}

// long skips a test that only make clusters runs.
func long(t *testing.T) {
	t.Helper()

	if testing.Short() {
		t.Skip("left to make clusters")
	}
}

func TestAFunctionIsKilledTenTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1500, "east", "west")
	w.waitFor(t, 500)
	w.hasWon(t, w.Clusters()...)
	east := w.Clusters()[0]
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for range 10 {
		if err := east.WaitUntilReady(ctx); err != nil {
			t.Fatal(err)
		}
		w.kill(t, east.Function, 1)
	}
	w.finish(t, w.Clusters()...)
}

func TestAClusterVanishesAndNeverComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3000, "east", "west")
	w.waitFor(t, 2000)
	w.hasWon(t, w.Clusters()[0])
	w.Clusters()[0].Vanish()
	w.finish(t, w.Clusters()[1])
}

func TestPostgreSQLCrashesInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3000, "east", "west")
	w.waitFor(t, 2000)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	if err := w.Postgres().Crash(ctx); err != nil { // like pg_ctl -m immediate
		t.Fatal(err)
	}
	w.finish(t, w.Clusters()...)
}

func TestThreeClustersInsteadOfTwo(t *testing.T) {
	long(t)
	t.Parallel()
	w := newWorld(t, 3000, "east", "west", "north")
	w.finish(t, w.Clusters()...)
	for _, c := range w.Clusters() {
		if w.won(t, c) == 0 {
			t.Errorf("%s has won nothing", c.Name())
		}
	}
}

func TestTheStreamsServerIsKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3000, "east", "west")
	w.waitFor(t, 2000)
	w.kill(t, w.NATS[0].Process(), 2)
	w.finish(t, w.Clusters()...)
}

func TestEveryPartIsKilledOneAfterTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1500, "east", "west")
	w.waitFor(t, 500)
	for _, c := range w.Clusters() {
		for _, p := range c.Processes() {
			w.kill(t, p, 1)
		}
	}
	w.finish(t, w.Clusters()...)
}
