package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	// A row is stored only over the one that was stored last, on the same
	// timeline: whoever finds another one has something to learn first. The head
	// never falls: what was delivered before a rewind was delivered.
	firstProgressSQL = fence11 + `insert into tandem.progress (cluster, function, stream, epoch, floor, head, hedge, fit, commit_ms, timeline)
select $1, $2, $3, $4, $5::text::numeric, greatest($6::text::numeric, $5::text::numeric), $7, $8, $9, case when $10::boolean then '' else tandem.timeline() end
where ` + may11 + `
on conflict (cluster, function, stream) do nothing
returning timeline`

	progressSQL = fence13 + `update tandem.progress
set epoch = $4, floor = $5::text::numeric, hedge = $7, fit = $8, commit_ms = $9, saved_at = now(),
    head = greatest($6::text::numeric, $5::text::numeric, case when epoch = $4 then head end)
where cluster = $1 and function = $2 and stream = $3
and epoch = $10 and floor = $11::text::numeric and timeline = $12 and tandem.timeline() = $12
and ` + may13 + `
returning timeline`

	// The same after a failover: when the stream is about to be rewound, and when
	// it has been.
	rewindProgressSQL = fence11 + `update tandem.progress
set epoch = $4, floor = $5::text::numeric, saved_at = now(),
    head = greatest($6::text::numeric, $5::text::numeric, case when epoch = $4 then head end),
    timeline = case when $10 then '' else tandem.timeline() end
where cluster = $1 and function = $2 and stream = $3 and epoch = $7 and floor = $8::text::numeric and timeline = $9
and ` + may11 + `
returning timeline`

	// Messages that a stream lost are forgotten; others have their sequences now.
	lowerHorizonSQL = `update tandem.horizon set floor = $4::text::numeric, moved_at = now()
where function = $1 and stream = $2 and epoch = $3 and floor > $4::text::numeric`

	loadProgressSQL = `select tandem.timeline(), coalesce(p.epoch, ''), coalesce(p.floor, 0)::text, coalesce(p.timeline, '')
from (values (1)) as one left join tandem.progress p on p.cluster = $1 and p.function = $2 and p.stream = $3`

	// Of several streams' rows the one that is least at rest counts. Who is ahead
	// says how far a stream has come.
	clustersSQL = `select p.cluster, coalesce((select 'standby' from tandem.standby s where s.function = $1 and s.cluster = p.cluster), min(p.hedge)), now() - max(p.saved_at), sum(greatest(f.head - p.floor, 0))::bigint,
    coalesce(bool_and(p.fit) filter (where p.saved_at > now() - interval '3 seconds'), false),
    coalesce(max(p.commit_ms) filter (where p.saved_at > now() - interval '3 seconds'), 0) * interval '1 millisecond'
from tandem.progress p
join (select stream, epoch, max(head) as head from tandem.progress where function = $1 group by stream, epoch) as f using (stream, epoch)
where p.function = $1 group by p.cluster order by p.cluster`
)

// Checkpoints stores how far the sources of one cluster have read their streams, and how
// much redundancy was set for them at run time. It is safe for concurrent use.
type Checkpoints struct {
	pool    *pgxpool.Pool
	cluster string
	lease   lease.Lease
}

// NewCheckpoints returns the checkpoints of one cluster in the database behind pool.
func NewCheckpoints(pool *pgxpool.Pool, cluster string) *Checkpoints {
	return &Checkpoints{pool: pool, cluster: cluster}
}

// With returns the same checkpoints for a replica with a lease: Save stores nothing after
// another replica has acquired it.
func (p *Checkpoints) With(held lease.Lease) *Checkpoints {
	with := *p
	with.lease = held
	return &with
}

// Checkpoint is what is stored of how far a source has come in a stream. Its
// zero value says that nothing is.
type Checkpoint struct {
	// Epoch tells one making of the stream from the next. Empty if nothing is
	// stored.
	Epoch string

	// Floor is a sequence number: every message below it is acknowledged.
	Floor uint64

	// Timeline is the history that the database followed when this was stored.
	// Empty if the stream is to be rewound to Floor before anything else.
	Timeline string
}

// Load gives what is stored for this cluster, and the timeline that the database
// follows now. If that is another one than what is stored was saved on, there was
// a failover since, and what was committed after the save may be gone.
func (p *Checkpoints) Load(ctx context.Context, function, stream string) (saved Checkpoint, timeline string, err error) {
	var floor string
	err = p.pool.QueryRow(ctx, loadProgressSQL, p.cluster, function, stream).Scan(&timeline, &saved.Epoch, &floor, &saved.Timeline)
	if err == nil {
		saved.Floor, err = strconv.ParseUint(floor, 10, 64)
	}
	if err != nil {
		return Checkpoint{}, "", fmt.Errorf("load progress of function %s in stream %s: %w", function, stream, err)
	}
	return saved, timeline, nil
}

// CheckpointUpdate is what [Checkpoints.Save] stores.
type CheckpointUpdate struct {
	// Epoch and Floor are as in [Checkpoint].
	Epoch string
	Floor uint64

	// Head is a sequence number: no message from it on was delivered.
	Head uint64

	// Hedge is how much redundancy the cluster reports: 0, a delay, share, or standby. With
	// Rewind or Adopt it stays as it is stored, if anything is. Whether the cluster
	// stands by is decided by [Checkpoints.StandBy].
	Hedge string

	// Fit means that the cluster may go first with events that clusters share: it does not
	// lag, and its function answers.
	Fit bool

	// CommitP99 is within what time of their receipt 99 of 100 events are committed; 0 if
	// that is not known. It is stored in milliseconds.
	CommitP99 time.Duration

	// Rewind says that the stream is about to be rewound to Floor. Whoever loads
	// the row has to see to it, until it is saved with Adopt.
	Rewind bool

	// Truncated, with Rewind, means that the stream lost its messages from Floor on, or
	// from one above it on, and may have others under their sequences: these are not
	// below the horizon.
	Truncated bool

	// Adopt says that a change of the timeline since the last save is known and
	// has been seen to: the stream gives again all from Floor on.
	Adopt bool
}

// Save stores how far this cluster has come, if what is stored is still what the
// caller believes, last, and on the timeline that it was saved on. It gives what
// is stored then. If ok is false nothing was stored: load, and see to it; or another replica
// has acquired the lease.
func (p *Checkpoints) Save(ctx context.Context, function, stream string, row CheckpointUpdate, last Checkpoint) (now Checkpoint, ok bool, err error) {
	sql := progressSQL
	args := []any{p.cluster, function, stream, row.Epoch, number(row.Floor), number(row.Head)}
	was := []any{last.Epoch, number(last.Floor), last.Timeline}
	switch {
	case last == (Checkpoint{}):
		sql = firstProgressSQL
		args = append(args, row.Hedge, row.Fit, row.CommitP99.Milliseconds(), row.Rewind)
	case row.Rewind || row.Adopt:
		sql = rewindProgressSQL
		args = append(append(args, was...), row.Rewind)
	default:
		args = append(append(args, row.Hedge, row.Fit, row.CommitP99.Milliseconds()), was...)
	}
	args = append(args, p.lease.Fence())
	if row.Truncated {
		if _, err := p.pool.Exec(ctx, lowerHorizonSQL, function, stream, row.Epoch, number(row.Floor)); err != nil {
			return Checkpoint{}, false, fmt.Errorf("lower horizon of function %s in stream %s: %w", function, stream, err)
		}
	}
	now = Checkpoint{Epoch: row.Epoch, Floor: row.Floor}
	err = p.pool.QueryRow(ctx, sql, args...).Scan(&now.Timeline)
	if errors.Is(err, pgx.ErrNoRows) {
		return Checkpoint{}, false, nil
	}
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("save progress of function %s in stream %s: %w", function, stream, err)
	}
	return now, true, nil
}

// ClusterStatus is what is known of a cluster that a function runs in.
type ClusterStatus struct {
	Cluster string

	// Hedge is standby while it stands by, else how much redundancy it last reported:
	// 0, a delay, or share.
	Hedge string

	// Age is the time since its source was heard of last, by the server's clock.
	// A source that runs is heard of every minute.
	Age time.Duration

	// Behind is how many messages lie between what it has acknowledged and the
	// last one that any cluster was handed, at most.
	Behind int64

	// Fit and CommitP99 are those of its latest checkpoints, if these are at most 3 s old.
	Fit       bool
	CommitP99 time.Duration
}

// Silent reports whether the cluster has not been heard of for so long that it does not
// count as being at work.
func (c ClusterStatus) Silent() bool { return c.Age > reportLimit }

// Clusters gives the clusters whose sources ever saved progress for function, by
// their names.
func (p *Checkpoints) Clusters(ctx context.Context, function string) ([]ClusterStatus, error) {
	rows, err := p.pool.Query(ctx, clustersSQL, function)
	if err != nil {
		return nil, fmt.Errorf("list the clusters of function %s: %w", function, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ClusterStatus])
	if err != nil {
		return nil, fmt.Errorf("list the clusters of function %s: %w", function, err)
	}
	return list, nil
}

// number is a sequence number as a numeric, which holds all 64 bits.
func number(n uint64) string { return strconv.FormatUint(n, 10) }
