package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

const (
	lookInterval = 50 * time.Millisecond

	// stallTimeout is the time without progress after which a peer counts as
	// stopped: longer than the stream waits for an acknowledgement, and than a
	// peer takes to rescue the work of a dead process.
	stallTimeout = 75 * time.Second
)

// The clusters.
const (
	east = "east"
	west = "west"
)

// errWrong means that the outcome differs from the truth, or that a process died.
var errWrong = errors.New("the outcome is wrong")

// errStalled means that there is no progress although work is left.
var errStalled = errors.New("there is no progress")

// trial is a running peer with a database and streams of its own.
type trial struct {
	d           *deployment
	peer        peer
	concurrency int
	workload    workload
	admin       *pgx.Conn // in the trial's database, as superuser
	parts       map[string][]*supervisor.Process
	connections int // the highest number observed
	looked      time.Time
}

// begin creates everything for a trial but starts nothing.
func (d *deployment) begin(ctx context.Context, p peer, concurrency int, load workload) (*trial, error) {
	if err := d.fresh(ctx, p); err != nil {
		return nil, err
	}
	admin, err := pgx.Connect(ctx, d.Postgres().AdminURL(trialDatabase))
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return &trial{d: d, peer: p, concurrency: concurrency, workload: load, admin: admin, parts: map[string][]*supervisor.Process{}}, nil
}

// end kills all running processes.
func (t *trial) end() {
	for cluster := range t.parts {
		t.kill(cluster)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = t.admin.Close(ctx)
}

func (t *trial) start(ctx context.Context, cluster string) error {
	parts, err := t.peer.start(ctx, t.d, cluster, t.concurrency)
	if err != nil {
		return err
	}
	t.parts[cluster] = parts
	return nil
}

// kill ends the processes of a cluster with SIGKILL.
func (t *trial) kill(cluster string) {
	for _, p := range t.parts[cluster] {
		p.Destroy()
	}
	delete(t.parts, cluster)
}

// state is the progress of a trial.
type state struct {
	added      int64 // flights in the totals of the airports
	outputs    uint64
	waiting    uint64 // messages that a durable consumer has not delivered
	unanswered int    // messages that are not acknowledged
	consumers  int
}

// look reads the progress. Reading the totals of 220 airports is cheaper than
// counting the flights.
func (t *trial) look(ctx context.Context) (state, error) {
	var s state
	if err := t.admin.QueryRow(ctx, "select coalesce(sum(flights), 0)::bigint from airports").Scan(&s.added); err != nil {
		return state{}, fmt.Errorf("read the totals: %w", err)
	}
	if err := t.count(ctx); err != nil {
		return state{}, err
	}
	out, err := t.d.JS.Stream(ctx, consume.OutputStream)
	if err != nil {
		return state{}, fmt.Errorf("look at stream %s: %w", consume.OutputStream, err)
	}
	s.outputs = out.CachedInfo().State.Msgs
	in, err := t.d.JS.Stream(ctx, consume.InputStream)
	if err != nil {
		return state{}, fmt.Errorf("look at stream %s: %w", consume.InputStream, err)
	}
	consumers := in.ListConsumers(ctx)
	for c := range consumers.Info() {
		for cluster := range t.parts {
			if c.Name == t.peer.durable(cluster) {
				s.consumers++
				s.waiting += c.NumPending
				s.unanswered += c.NumAckPending
			}
		}
	}
	if err := consumers.Err(); err != nil {
		return state{}, fmt.Errorf("look at the consumers of stream %s: %w", consume.InputStream, err)
	}
	return s, nil
}

// count counts the peer's connections, four times a second.
func (t *trial) count(ctx context.Context) error {
	if time.Since(t.looked) < 250*time.Millisecond {
		return nil
	}
	t.looked = time.Now()
	var n int
	if err := t.d.Admin.QueryRow(ctx, "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend' and usename = 'tandem'", trialDatabase).Scan(&n); err != nil {
		return fmt.Errorf("count connections: %w", err)
	}
	t.connections = max(t.connections, n)
	return nil
}

// applied reports whether all events are applied and all outputs are published.
func (t *trial) applied(s state) bool {
	return s.added >= int64(t.workload.distinct) && s.outputs >= uint64(t.workload.total().Delayed)
}

// through reports whether, in addition, the stream has all acknowledgements of
// the running consumers.
func (t *trial) through(s state) bool {
	return t.applied(s) && s.consumers == len(t.parts) && s.waiting == 0 && s.unanswered == 0
}

// await waits until want returns true. It returns errStalled if there is no
// progress for stallTimeout.
func (t *trial) await(ctx context.Context, want func(state) bool) error {
	var last state
	since := time.Now()
	for {
		s, err := t.look(ctx)
		if err != nil || want(s) {
			return err
		}
		if s != last {
			last, since = s, time.Now()
		}
		if time.Since(since) > stallTimeout {
			return fmt.Errorf("%s: %w: %d of %d events, %d of %d outputs, %d messages not handed out, %d not acknowledged; logs are in %s",
				t.peer.name, errStalled, s.added, t.workload.distinct, s.outputs, t.workload.total().Delayed, s.waiting, s.unanswered, filepath.Join(t.d.dir, "log"))
		}
		if err := sleep(ctx, lookInterval); err != nil {
			return err
		}
	}
}

// checkpoint executes a checkpoint before a measurement, so that no peer pays for
// writes of another.
func (t *trial) checkpoint(ctx context.Context) error {
	if _, err := t.admin.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

func (t *trial) wal(ctx context.Context) (n int64, err error) {
	if err := t.admin.QueryRow(ctx, "select (pg_current_wal_insert_lsn() - '0/0')::bigint").Scan(&n); err != nil {
		return 0, fmt.Errorf("read the WAL position: %w", err)
	}
	return n, nil
}

// throughput is the result of a throughput trial.
type throughput struct {
	EventsPerSecond float64 `json:"events_per_second"`
	WALPerEvent     float64 `json:"wal_bytes_per_event"`
	Connections     int     `json:"connections"`
	Events          int     `json:"events"`
}

// throughput lets both clusters process a stream that was filled before. The time is
// that from the first commit until all events are committed, all outputs are in their
// stream and all messages are acknowledged by both clusters.
func (d *deployment) throughput(ctx context.Context, p peer, concurrency int, load workload) (throughput, error) {
	t, err := d.begin(ctx, p, concurrency, load)
	if err != nil {
		return throughput{}, err
	}
	defer t.end()
	if err := publish(ctx, d.JS, load.messages, 0); err != nil {
		return throughput{}, err
	}
	if err := t.checkpoint(ctx); err != nil {
		return throughput{}, err
	}
	before, err := t.wal(ctx)
	if err != nil {
		return throughput{}, err
	}
	for _, cluster := range []string{east, west} {
		if err := t.start(ctx, cluster); err != nil {
			return throughput{}, err
		}
	}
	if err := t.await(ctx, t.through); err != nil {
		return throughput{}, err
	}
	ended := time.Now()
	t.looked = time.Time{} // it may have been too fast to be counted
	if err := t.count(ctx); err != nil {
		return throughput{}, err
	}
	after, err := t.wal(ctx)
	if err != nil {
		return throughput{}, err
	}
	var first time.Time
	if err := t.admin.QueryRow(ctx, "select min(pg_xact_commit_timestamp(xmin)) from flights").Scan(&first); err != nil {
		return throughput{}, fmt.Errorf("read the first commit: %w", err)
	}
	if err := t.exact(ctx); err != nil {
		return throughput{}, err
	}
	return throughput{
		EventsPerSecond: float64(load.distinct) / ended.Sub(first).Seconds(),
		WALPerEvent:     float64(after-before) / float64(load.distinct),
		Connections:     t.connections,
		Events:          load.distinct,
	}, nil
}

// exact returns an error if anything differs from the truth, or if a process
// died.
func (t *trial) exact(ctx context.Context) error {
	o, err := t.outcome(ctx)
	if err != nil {
		return err
	}
	if o.wrong() {
		return fmt.Errorf("%s: %w: %s", t.peer.name, errWrong, o)
	}
	select {
	case died := <-t.d.died:
		return fmt.Errorf("%s: %w: %s died: %s", t.peer.name, errWrong, died.Name, died.Reason)
	default:
		return nil
	}
}
