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
	// A row is stored only if the stored row is the caller's latest, on the same
	// timeline; a caller that finds another row has to load it first. The head
	// never decreases: messages that were delivered before a rewind stay
	// delivered.
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

	// The same after a failover: before the stream is rewound, and afterwards.
	rewindProgressSQL = fence11 + `update tandem.progress
set epoch = $4, floor = $5::text::numeric, saved_at = now(),
    head = greatest($6::text::numeric, $5::text::numeric, case when epoch = $4 then head end),
    timeline = case when $10 then '' else tandem.timeline() end
where cluster = $1 and function = $2 and stream = $3 and epoch = $7 and floor = $8::text::numeric and timeline = $9
and ` + may11 + `
returning timeline`

	// The horizon is lowered below messages that the stream lost, because others
	// have their sequence numbers now.
	lowerHorizonSQL = `update tandem.horizon set floor = $4::text::numeric, moved_at = now()
where function = $1 and stream = $2 and epoch = $3 and floor > $4::text::numeric`

	loadProgressSQL = `select tandem.timeline(), coalesce(p.epoch, ''), coalesce(p.floor, 0)::text, coalesce(p.timeline, '')
from (values (1)) as one left join tandem.progress p on p.cluster = $1 and p.function = $2 and p.stream = $3`

	// If a cluster has rows for several streams, the one with the most redundancy
	// counts. The head of the foremost cluster is the end of the stream.
	clustersSQL = `select p.cluster, coalesce((select 'standby' from tandem.standby s where s.function = $1 and s.cluster = p.cluster), min(p.hedge)), now() - max(p.saved_at), sum(greatest(f.head - p.floor, 0))::bigint,
    coalesce(bool_and(p.fit) filter (where p.saved_at > now() - interval '3 seconds'), false),
    coalesce(max(p.commit_ms) filter (where p.saved_at > now() - interval '3 seconds'), 0) * interval '1 millisecond'
from tandem.progress p
join (select stream, epoch, max(head) as head from tandem.progress where function = $1 group by stream, epoch) as f using (stream, epoch)
where p.function = $1 group by p.cluster order by p.cluster`
)

// Checkpoints stores how far the sources of one cluster have read their streams, and the
// redundancy that was set for them at run time. It is safe for concurrent use.
type Checkpoints struct {
	pool    *pgxpool.Pool
	cluster string
	lease   lease.Lease
}

// NewCheckpoints returns the checkpoints of one cluster in the database behind pool.
func NewCheckpoints(pool *pgxpool.Pool, cluster string) *Checkpoints {
	return &Checkpoints{pool: pool, cluster: cluster}
}

// With returns Checkpoints for a replica with a lease: Save stores nothing after another
// replica has acquired the lease.
func (p *Checkpoints) With(held lease.Lease) *Checkpoints {
	with := *p
	with.lease = held
	return &with
}

// Checkpoint is the stored position of a source in a stream. Its zero value
// means that none is stored.
type Checkpoint struct {
	// Epoch identifies one incarnation of the stream. Empty if nothing is
	// stored.
	Epoch string

	// Floor is a sequence number: every message below it is acknowledged.
	Floor uint64

	// Timeline is the timeline of the database on which this was stored. Empty
	// if the stream has to be rewound to Floor first.
	Timeline string
}

// Load returns the stored checkpoint of this cluster, and the current timeline of
// the database. If the timelines differ, there was a failover since the
// checkpoint was saved, and later commits may be lost.
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

	// Hedge is the redundancy that the cluster reports: 0, a delay, share, or standby. With
	// Rewind or Adopt the stored value is kept, if there is one. [Checkpoints.StandBy]
	// decides whether the cluster stands by.
	Hedge string

	// Fit means that the cluster may process shared events first: it does not lag, and its
	// function answers.
	Fit bool

	// CommitP99 is the 99th percentile of the time from receipt to commit; 0 if unknown.
	// It is stored in milliseconds.
	CommitP99 time.Duration

	// Rewind means that the stream is about to be rewound to Floor. Until a
	// checkpoint is saved with Adopt, a process that loads the row has to rewind
	// the stream.
	Rewind bool

	// Truncated, with Rewind, means that the stream lost its messages from Floor, or
	// from a higher sequence number, on. It may have other messages under their
	// sequence numbers, which are not below the horizon.
	Truncated bool

	// Adopt means that the caller has handled a change of the timeline since
	// the last save: the stream redelivers all messages from Floor on.
	Adopt bool
}

// Save stores the position of this cluster, if the stored checkpoint equals last and the
// database still has the timeline of last. It returns the stored checkpoint. If ok is false,
// nothing was stored: the caller has to load the checkpoint and handle the change, or
// another replica has acquired the lease.
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

// ClusterStatus is the status of a cluster that a function runs in.
type ClusterStatus struct {
	Cluster string

	// Hedge is standby while the cluster stands by, else the redundancy that it last
	// reported: 0, a delay, or share.
	Hedge string

	// Age is the time since its source last reported, by the server's clock. A
	// running source reports every minute.
	Age time.Duration

	// Behind is an upper bound of the number of messages between its
	// acknowledged position and the last message that was delivered in any
	// cluster.
	Behind int64

	// Fit and CommitP99 are from its latest checkpoints, if these are at most 3 s old.
	Fit       bool
	CommitP99 time.Duration
}

// Silent reports whether the cluster has not reported for so long that it does not
// count as active.
func (c ClusterStatus) Silent() bool { return c.Age > reportLimit }

// Clusters returns the clusters whose sources have ever saved progress for
// function, by name.
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

// number formats a sequence number as a numeric, which holds all 64 bits.
func number(n uint64) string { return strconv.FormatUint(n, 10) }
