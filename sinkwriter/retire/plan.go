package retire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// Clusters of function $1 with any remaining rows, and the state of their sources: a source
	// holds its lease, or, in a version without leases, saves its checkpoint once a minute.
	retireClustersSQL = `with named as (
    select cluster from tandem.progress where function = $1
    union select cluster from tandem.source_lease where function = $1
    union select cluster from tandem.standby where function = $1
    union select cluster from tandem.hedge where function = $1 and cluster <> ''
    union select cluster from tandem.tries where function = $1
    union select cluster from tandem.blocked_event where function = $1
    union select cluster from tandem.deferred_event where function = $1
    union select cluster from tandem.dead_letter where function = $1
)
select n.cluster,
    coalesce(l.site || '/' || l.replica, '') as holder,
    case when l.cluster is not null then l.site <> $2 and l.until > clock_timestamp()
        else coalesce(p.saved_at > now() - $3::interval, false) end as running,
    coalesce(clock_timestamp() - greatest(l.renewed_at, p.saved_at), interval '0') as age,
    p.cluster is not null as reads,
    exists (select from tandem.standby s where s.function = $1 and s.cluster = n.cluster) as stands_by
from named n
left join tandem.source_lease l on l.function = $1 and l.cluster = n.cluster
left join (select cluster, max(saved_at) as saved_at from tandem.progress where function = $1 group by cluster) p on p.cluster = n.cluster
order by n.cluster`

	retireCheckpointsSQL = `select cluster, stream, epoch, floor::text, greatest(head, floor)::text from tandem.progress
where function = $1 and ($2 = '' or cluster = $2) order by stream, cluster`

	// Events that no cluster has committed and that exist only in rows to delete: for a
	// cluster, those of which no other cluster of the function has a row.
	retireLossesSQL = `with held as (
    select 'dead-letters' as kind, source, id, tandem.key(function, source, id) as key from tandem.dead_letter where function = $1 and ($2 = '' or cluster = $2)
    union all
    select 'deferred', source, id, key from tandem.deferred_event where function = $1 and ($2 = '' or cluster = $2)
    union all
    select 'stored', source, id, tandem.key(function, source, id) from tandem.blocked_event where function = $1 and ($2 = '' or cluster = $2)
), elsewhere as (
    select source, id from tandem.dead_letter where function = $1 and $2 <> '' and cluster <> $2
    union
    select source, id from tandem.deferred_event where function = $1 and $2 <> '' and cluster <> $2
    union
    select source, id from tandem.blocked_event where function = $1 and $2 <> '' and cluster <> $2
), lost as (
    select kind, source, id from held h
    where not exists (select from tandem.ledger l where l.key = h.key)
    except
    select k.kind, e.source, e.id from elsewhere e, (values ('dead-letters'), ('deferred'), ('stored')) as k (kind)
)
select kind, count(*) from lost group by kind
union all
select 'outputs', count(*) from tandem.outbox_event where $2 = '' and event_source = '/tandem/' || $1 having count(*) > 0
union all
select 'rejected-outputs', count(*) from tandem.rejected_output where $2 = '' and source = '/tandem/' || $1 having count(*) > 0
order by 1`

	retireHorizonsSQL = `select count(*) from tandem.horizon where function = $1`

	// The latest commit of a function whose events another function's source delivers, or a
	// source that saves no checkpoint.
	retireCommittedSQL = `select coalesce(clock_timestamp() - max(l.committed_at), interval '1 year') from tandem.ledger l
where l.writer = any(array(select w.writer from tandem.writer w where w.function = $1))`

	// Sessions of role $1 and of its members in this database, without those of the caller's role.
	// Null if there is no such role.
	retireSessionsSQL = `select (select count(*) from pg_catalog.pg_stat_activity a
    where a.datname = current_database() and a.usesysid <> (select u.oid from pg_catalog.pg_roles u where u.rolname = current_user)
    and (a.usesysid = r.oid or a.usesysid in (select m.member from pg_catalog.pg_auth_members m where m.roleid = r.oid)))
from pg_catalog.pg_roles r where r.rolname = $1`

	// Tables that the role may not delete from.
	retirePrivilegesSQL = `select c.oid::regclass::text from pg_catalog.pg_class c
where c.oid = any(array['tandem.progress', 'tandem.source_lease', 'tandem.standby', 'tandem.hedge', 'tandem.tries', 'tandem.dead_letter',
    'tandem.deferred_event', 'tandem.blocked_event', 'tandem.outbox', 'tandem.rejected_output', 'tandem.divergence', 'tandem.divergence_count',
    'tandem.floor_sample', 'tandem.ledger', 'tandem.writer']::regclass[])
and not pg_catalog.has_table_privilege(c.oid, 'delete') order by 1`
)

// The kinds of what may be lost, as [Loss] has them.
const (
	LossDeadLetters = "dead-letters"     // events with a dead letter that was neither replayed nor dropped
	LossDeferred    = "deferred"         // deferred events
	LossStored      = "stored"           // events behind a dead letter of their subject
	LossOutputs     = "outputs"          // outputs in the outbox
	LossRejected    = "rejected-outputs" // outputs that their stream or sink rejected
)

const (
	// site is the holder of the leases of clusters that are being retired.
	site = "tandem-retire"

	// silence is the time without a checkpoint after which a source without a lease counts as
	// ended, and the time without a commit after which a function without checkpoints does.
	silence = 3 * time.Minute
)

// Cluster is a cluster of the function with any remaining rows.
type Cluster struct {
	Name    string
	Holder  string        // site and replica of the source's lease
	Running bool          // the source delivers, or may do so
	Age     time.Duration // since the source last reported; 0 if it never did
	Reads   bool          // it has a checkpoint
	StandBy bool          // it stands by
}

// Checkpoint is the position of a cluster in a stream: every message below Floor is
// acknowledged, and none from Head on was delivered.
type Checkpoint struct {
	Cluster, Stream, Epoch string
	Floor, Head            uint64
}

// Rows are rows of a table that are deleted.
type Rows struct {
	Table, What string
	Count       int64
}

// Loss is a number of events or outputs that exist nowhere else.
type Loss struct {
	Kind  string
	Count int64
}

// Plan lists the rows that a retirement removes.
type Plan struct {
	// Retired are the clusters that are retired, and Others those of the function that remain.
	Retired, Others []Cluster

	// Checkpoints are the checkpoints of the clusters in Retired.
	Checkpoints []Checkpoint

	Rows   []Rows
	Losses []Loss

	// Horizon reports that a horizon of the function exists, for example after its
	// retirement.
	Horizon bool

	// SinceCommit is the time since the function's latest commit. It is looked up for
	// functions without checkpoints; else 0.
	SinceCommit time.Duration
}

// Empty reports whether nothing is left to remove.
func (p Plan) Empty() bool {
	return len(p.Retired) == 0 && !slices.ContainsFunc(p.Rows, func(r Rows) bool { return r.Count > 0 })
}

// RecentCommit reports whether the function committed an event so recently that it may still be
// running, although no source of its own has a checkpoint.
func (p Plan) RecentCommit() bool { return p.SinceCommit > 0 && p.SinceCommit < silence }

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Plan returns the plan without changing anything.
func (r *Retirement) Plan(ctx context.Context) (p Plan, err error) {
	err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		p, err = r.plan(ctx, tx)
		return err
	})
	if err != nil {
		return Plan{}, r.failed("look up what is left of", err)
	}
	return p, nil
}

// Sessions returns the number of sessions of a role, and of its members, in the database.
func (r *Retirement) Sessions(ctx context.Context, role string) (n int64, err error) {
	err = r.pool.QueryRow(ctx, retireSessionsSQL, role).Scan(&n)
	if errors.Is(err, pgx.ErrNoRows) {
		err = errors.New("there is no such role")
	}
	if err != nil {
		return 0, fmt.Errorf("look up sessions of role %s: %w", role, err)
	}
	return n, nil
}

func (r *Retirement) plan(ctx context.Context, db querier) (p Plan, err error) {
	if p.Retired, p.Others, err = r.clusters(ctx, db); err != nil {
		return p, err
	}
	rows, err := db.Query(ctx, retireCheckpointsSQL, r.function, r.cluster)
	if err != nil {
		return p, err
	}
	if p.Checkpoints, err = pgx.CollectRows(rows, scanCheckpoint); err != nil {
		return p, err
	}
	for _, k := range r.kinds() {
		of := Rows{Table: k.table, What: k.what}
		if err = db.QueryRow(ctx, k.count(), r.arguments(k)...).Scan(&of.Count); err != nil {
			return p, err
		}
		p.Rows = append(p.Rows, of)
	}
	if rows, err = db.Query(ctx, retireLossesSQL, r.function, r.cluster); err != nil {
		return p, err
	}
	if p.Losses, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Loss]); err != nil {
		return p, err
	}
	var horizons int64
	if err = db.QueryRow(ctx, retireHorizonsSQL, r.function).Scan(&horizons); err != nil {
		return p, err
	}
	p.Horizon = horizons > 0
	if len(p.Checkpoints) == 0 && r.cluster == "" {
		err = db.QueryRow(ctx, retireCommittedSQL, r.function).Scan(&p.SinceCommit)
	}
	return p, err
}

// clusters returns the clusters of the function that are retired, and the others.
func (r *Retirement) clusters(ctx context.Context, db querier) (retired, others []Cluster, err error) {
	rows, err := db.Query(ctx, retireClustersSQL, r.function, site, silence)
	if err != nil {
		return nil, nil, err
	}
	clusters, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Cluster])
	for _, c := range clusters {
		if r.cluster == "" || c.Name == r.cluster {
			retired = append(retired, c)
		} else {
			others = append(others, c)
		}
	}
	return retired, others, err
}

func scanCheckpoint(row pgx.CollectableRow) (c Checkpoint, err error) {
	var floor, head string
	if err = row.Scan(&c.Cluster, &c.Stream, &c.Epoch, &floor, &head); err != nil {
		return c, err
	}
	if c.Floor, err = strconv.ParseUint(floor, 10, 64); err == nil {
		c.Head, err = strconv.ParseUint(head, 10, 64)
	}
	return c, err
}

func (r *Retirement) failed(verb string, err error) error {
	if r.cluster != "" {
		return fmt.Errorf("%s cluster %s of function %s: %w", verb, r.cluster, r.function, err)
	}
	return fmt.Errorf("%s function %s: %w", verb, r.function, err)
}
