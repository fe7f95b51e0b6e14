package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"  //nolint:depguard // this is where eventing and the database are joined
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // this is where eventing and the database are joined

	"github.com/tandem-fn/tandem/eventing/relay"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/lease"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

// database is the source's access to PostgreSQL.
type database struct {
	progress timelineCheckpoints
	tries    *ledger.Attempts
	verdicts *ledger.Blocked
	deferred *deferred.Store
	ledger   source.Ledger
	suspects source.Suspects
	letters  *deadletter.Store
	relay    relay.Outbox
	old      *ledger.Retention
	standbys func(context.Context) ([]ledger.Standby, error)
	traffic  telemetry.Traffic
	leases   *lease.Leases
	peers    source.Peers
	close    func()
}

// openDatabase sets up connections under a name. They are made when needed: the database
// may be unavailable. The error means that the URL is invalid.
func openDatabase(ctx context.Context, url, cluster, function, name string, keep time.Duration) (database, error) {
	cfg, err := postgres.ParseConfig(url, 5*time.Second)
	if err != nil {
		return database{}, fmt.Errorf("DATABASE_URL: %w", err)
	}
	cfg.MaxConns = 9 // one each for the lease, checkpoints, suspects, the relay and retention, and four for lookups
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = name
	}
	dial, traffic := telemetry.Counted(telemetry.Dial(cfg.ConnConfig.DialFunc))
	cfg.ConnConfig.DialFunc = pgconn.DialFunc(dial)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return database{}, fmt.Errorf("set up connections to the database: %w", err)
	}
	retention := ledger.RetentionConfig{Cluster: cluster, Function: function, Keep: keep}
	if function == "" { // a relay only: rows of functions without a source are kept for this time
		retention.Cluster = ""
	}
	old, err := ledger.NewRetention(pool, retention)
	if err != nil {
		pool.Close()
		return database{}, err
	}
	now := &timeline{}
	return database{
		old:      old,
		progress: timelineCheckpoints{ledger.NewCheckpoints(pool, cluster), now},
		tries:    ledger.NewAttempts(pool, cluster),
		verdicts: ledger.NewBlocked(pool, cluster),
		deferred: deferred.NewStore(pool, cluster),
		ledger:   timelineLedger{ledger.New(pool), now},
		suspects: ledger.NewSuspects(pool, cluster),
		letters:  deadletter.NewStore(pool, cluster),
		relay:    sinkwriter.NewOutbox(pool),
		standbys: func(ctx context.Context) ([]ledger.Standby, error) { return ledger.Replication(ctx, pool) },
		traffic:  traffic,
		leases:   lease.New(pool, cluster),
		peers:    ledger.NewCheckpoints(pool, cluster),
		close:    pool.Close,
	}, nil
}

// with returns the database for a replica with a lease: without the lease, nothing is
// stored.
func (d database) with(held lease.Lease) database {
	d.progress.Checkpoints = d.progress.With(held)
	d.tries, d.verdicts, d.deferred = d.tries.With(held), d.verdicts.With(held), d.deferred.With(held)
	return d
}

// timelineCheckpoints are the checkpoints in the database.
type timelineCheckpoints struct {
	*ledger.Checkpoints
	timeline *timeline
}

// Load implements [source.Checkpoints]; it records the timeline.
func (p timelineCheckpoints) Load(ctx context.Context, function, stream string) (ledger.Checkpoint, string, error) {
	saved, now, err := p.Checkpoints.Load(ctx, function, stream)
	if err == nil {
		p.timeline.met(now)
	}
	return saved, now, err
}

// Save implements [source.Checkpoints]; it records a timeline that the source adopts.
func (p timelineCheckpoints) Save(ctx context.Context, function, stream string, row ledger.CheckpointUpdate, last ledger.Checkpoint) (ledger.Checkpoint, bool, error) {
	now, ok, err := p.Checkpoints.Save(ctx, function, stream, row, last)
	if err == nil && ok && row.Adopt {
		p.timeline.adopted(now.Timeline)
	}
	return now, ok, err
}

// timeline is the latest known timeline of the database.
type timeline struct {
	mu     sync.Mutex
	latest string
	back   bool // a former primary took over again: a later timeline belongs to the server in between
}

func (t *timeline) met(now string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.back && !ledger.Earlier(now, t.latest) {
		t.latest = now
	}
}

// adopted records a timeline on which the stream was rewound: the database is on it, even if it
// is an earlier one.
func (t *timeline) adopted(now string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.back = ledger.Earlier(now, t.latest) || t.back && now == t.latest
	t.latest = now
}

// check returns why an answer from a timeline cannot be trusted: it may come from a
// server that is no longer the primary, over a connection that is still open.
func (t *timeline) check(answer string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest == "" || answer == t.latest || !t.back && ledger.Earlier(t.latest, answer) {
		return nil
	}
	return fmt.Errorf("the ledger answers on timeline %s, and the database is on %s", answer, t.latest)
}

// timelineLedger looks events up by their keys.
type timelineLedger struct {
	*ledger.Ledger
	timeline *timeline
}

func (l timelineLedger) Committed(ctx context.Context, function string, events []source.EventID) ([]bool, error) {
	keys := make([]ledger.Key, len(events))
	for i, e := range events {
		keys[i] = ledger.NewKey(function, e.Source, e.ID)
	}
	found, answered, err := l.Ledger.Committed(ctx, keys)
	if err == nil {
		err = l.timeline.check(answered)
	}
	if err != nil {
		return nil, err
	}
	done := make([]bool, len(keys))
	for i, k := range keys {
		done[i] = found[k]
	}
	return done, nil
}
