package retire

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
)

const (
	// The leases of the clusters, unless a source has one: no source of theirs starts for five
	// minutes, as it is another site's. The clusters come sorted.
	retireLeasesSQL = `insert into tandem.source_lease as l (cluster, function, site, replica, epoch, renewed_at, until)
select c, $1, $3, 'tandem retire', 1, clock_timestamp(), clock_timestamp() + interval '5 minutes' from unnest($2::text[]) as u (c) order by c
on conflict (cluster, function) do update
set site = excluded.site, replica = excluded.replica, renewed_at = clock_timestamp(), until = excluded.until,
    epoch = case when l.site = excluded.site then l.epoch else l.epoch + 1 end
where l.until <= clock_timestamp() or l.site = excluded.site
returning cluster`

	// Messages below the head may be committed, and the ledger is about to forget
	// them.
	retireHorizonSQL = `insert into tandem.horizon as h (function, stream, epoch, floor)
select $1, u.stream, u.epoch, max(u.head::numeric) from unnest($2::text[], $3::text[], $4::text[]) as u (stream, epoch, head) group by u.stream, u.epoch
on conflict (function, stream, epoch) do update set floor = excluded.floor, moved_at = now() where excluded.floor > h.floor`

	retireWritersSQL = `select writer from tandem.writer where function = $1`

	retirePagesSQL = `select pg_catalog.pg_relation_size('tandem.ledger') / pg_catalog.current_setting('block_size')::bigint`

	// Processes a range of the table's pages, like a sweep of the retention.
	retireLedgerSQL = `delete from tandem.ledger where ctid >= $1::text::tid and ctid < $2::text::tid and writer = any($3)`

	// A row of the outbox may contain outputs of several functions. Returns the number of
	// deleted outputs.
	retireOutboxSQL = `with divided as (
    select o.id, count(*) filter (where e ->> 'source' = '/tandem/' || $1) as own,
        string_agg(e::text, E',\n' order by n) filter (where e ->> 'source' <> '/tandem/' || $1) as others
    from tandem.outbox o, json_array_elements(o.events::json) with ordinality as x (e, n) group by o.id
), reduced as (
    update tandem.outbox o set events = '[' || d.others || ']' from divided d where o.id = d.id and d.own > 0 and d.others is not null returning d.own
), deleted as (
    delete from tandem.outbox o using divided d where o.id = d.id and d.own > 0 and d.others is null returning d.own
)
select coalesce(sum(own), 0)::bigint from (select own from reduced union all select own from deleted) as gone`
)

const (
	// ledgerPages is the number of pages of 8 KiB of the ledger that one transaction
	// processes.
	ledgerPages = 1024

	// renewInterval is how often the leases are renewed while the ledger is swept.
	renewInterval = time.Minute
)

// kind is a kind of rows that are deleted. The condition has the function as $1 and, unless the
// rows belong to the whole function, the cluster or an empty text as $2.
type kind struct {
	table, what, condition string
	whole                  bool
}

func (k kind) count() string  { return "select count(*) from " + k.table + " where " + k.condition }
func (k kind) delete() string { return "delete from " + k.table + " where " + k.condition }

const (
	ofScope    = `function = $1 and ($2 = '' or cluster = $2)`
	ofFunction = `function = $1`
	ofWriters  = `writer = any(array(select w.writer from tandem.writer w where w.function = $1))`
	ofOutputs  = `source = '/tandem/' || $1`
)

const (
	ledgerTable = "tandem.ledger"
	outboxTable = "tandem.outbox_event"
)

// kinds returns the kinds of rows to delete, in this order. The rows by which another run finds
// the clusters and the events in the ledger come last.
func (r *Retirement) kinds() []kind {
	of := []kind{
		{table: "tandem.dead_letter", what: "dead letters", condition: ofScope},
		{table: "tandem.deferred_event", what: "deferred events", condition: ofScope},
		{table: "tandem.blocked_event", what: "stored events", condition: ofScope},
		{table: "tandem.tries", what: "failed attempts", condition: ofScope},
		{table: "tandem.hedge", what: "hedge settings", condition: ofScope},
		{table: "tandem.standby", what: "standby grants", condition: ofScope},
	}
	if r.cluster == "" {
		of = append(of,
			kind{outboxTable, "unpublished outputs", `event_source = '/tandem/' || $1`, true},
			kind{"tandem.rejected_output", "rejected outputs", ofOutputs, true},
			kind{"tandem.divergence", "divergences", ofFunction, true},
			kind{"tandem.divergence_count", "counts of divergences", ofFunction, true},
			kind{"tandem.floor_sample", "samples of heads", ofFunction, true},
			kind{ledgerTable, "events in the ledger", ofWriters, true},
			kind{"tandem.writer", "writers", ofFunction, true},
		)
	}
	return append(of,
		kind{table: "tandem.progress", what: "checkpoints", condition: ofScope},
		kind{table: "tandem.source_lease", what: "leases", condition: ofScope},
	)
}

// arguments returns the arguments of a kind's condition.
func (r *Retirement) arguments(k kind) []any {
	if k.whole {
		return []any{r.function}
	}
	return []any{r.function, r.cluster}
}

// ErrRunning means that a source of a cluster to be retired holds its lease.
var ErrRunning = errors.New("a source of it is running")

// Head is the sequence in a stream below which messages may have been committed.
type Head struct {
	Stream, Epoch string
	Sequence      uint64
}

// Retirement removes a function, or one cluster of it, from the database. Its role must be the
// one that migrates. It is safe for concurrent use, also in several processes.
type Retirement struct {
	pool              *pgxpool.Pool
	function, cluster string
}

// New returns the retirement of a function or, if cluster is not empty, of one cluster of it, in
// the database behind pool.
func New(pool *pgxpool.Pool, function, cluster string) *Retirement {
	return &Retirement{pool: pool, function: function, cluster: cluster}
}

// Reserve calls check with the plan and, if check returns nil, keeps the sources of the
// retired clusters from starting for five minutes: Remove may follow, which lasts as long as it
// takes. The error is that of check, or wraps [ErrRunning], and then nothing was changed.
func (r *Retirement) Reserve(ctx context.Context, check func(Plan) error) error {
	if err := r.checkPrivileges(ctx); err != nil {
		return r.failed("retire", err)
	}
	var refused error
	err := pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		retired, _, err := r.clusters(ctx, tx)
		if err != nil {
			return err
		}
		if err := r.reserve(ctx, tx, names(retired)); err != nil {
			return err
		}
		p, err := r.plan(ctx, tx)
		if err != nil {
			return err
		}
		refused = check(p)
		return refused
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		return r.failed("retire", err)
	}
	return nil
}

func names(clusters []Cluster) []string {
	list := make([]string, len(clusters))
	for i, c := range clusters {
		list[i] = c.Name
	}
	return list
}

// checkPrivileges returns an error if the role may not delete: a retirement must not end halfway.
func (r *Retirement) checkPrivileges(ctx context.Context) error {
	rows, err := r.pool.Query(ctx, retirePrivilegesSQL)
	if err != nil {
		return err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(tables) > 0 {
		err = fmt.Errorf("this role may not delete from %s: use the role that runs tandem migrate", strings.Join(tables, ", "))
	}
	return err
}

func (r *Retirement) reserve(ctx context.Context, tx pgx.Tx, clusters []string) error {
	rows, err := tx.Query(ctx, retireLeasesSQL, r.function, clusters, site)
	if err != nil {
		return err
	}
	reserved, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(reserved) < len(clusters) {
		err = ErrRunning
	}
	return err
}

// Remove deletes what the plan has that [Retirement.Reserve] passed to its check. Of a function,
// it moves the horizons up to heads and to those of the checkpoints first, and deletes the events
// in the ledger in short transactions. After an error or a crash, call Reserve and Remove again.
// It returns what was deleted.
func (r *Retirement) Remove(ctx context.Context, p Plan, heads []Head) (deleted []Rows, err error) {
	var forgotten int64
	if r.cluster == "" {
		if forgotten, err = r.forget(ctx, p, heads); err != nil {
			return nil, r.failed("retire", err)
		}
	}
	err = pgx.BeginTxFunc(ctx, r.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		deleted = nil
		for _, k := range r.kinds() {
			of := Rows{Table: k.table, What: k.what, Count: forgotten}
			if k.table != ledgerTable {
				if of.Count, err = r.delete(ctx, tx, k); err != nil {
					return fmt.Errorf("delete %s: %w", k.what, err)
				}
			}
			deleted = append(deleted, of)
		}
		return nil
	})
	if err != nil {
		return nil, r.failed("retire", err)
	}
	return deleted, nil
}

// delete deletes the rows of a kind and returns their number.
func (r *Retirement) delete(ctx context.Context, tx pgx.Tx, k kind) (n int64, err error) {
	if k.table == outboxTable {
		return n, tx.QueryRow(ctx, retireOutboxSQL, r.function).Scan(&n)
	}
	tag, err := tx.Exec(ctx, k.delete(), r.arguments(k)...)
	return tag.RowsAffected(), err
}

// forget moves the horizons, deletes the function's events from the ledger, and returns their number.
func (r *Retirement) forget(ctx context.Context, p Plan, heads []Head) (forgotten int64, err error) {
	var streams, epochs, sequences []string
	for _, c := range p.Checkpoints {
		heads = append(heads[:len(heads):len(heads)], Head{c.Stream, c.Epoch, c.Head})
	}
	for _, h := range heads {
		streams, epochs, sequences = append(streams, h.Stream), append(epochs, h.Epoch), append(sequences, strconv.FormatUint(h.Sequence, 10))
	}
	if _, err := r.pool.Exec(ctx, retireHorizonSQL, r.function, streams, epochs, sequences); err != nil {
		return 0, fmt.Errorf("move the horizons: %w", err)
	}
	rows, err := r.pool.Query(ctx, retireWritersSQL, r.function)
	if err != nil {
		return 0, err
	}
	writers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil || len(writers) == 0 {
		return 0, err
	}
	var pages int64
	if err := r.pool.QueryRow(ctx, retirePagesSQL).Scan(&pages); err != nil {
		return 0, fmt.Errorf("measure the ledger: %w", err)
	}
	page := func(n int64) string { return "(" + strconv.FormatInt(n, 10) + ",0)" }
	renew := time.NewTicker(renewInterval)
	defer renew.Stop()
	for from := int64(0); from < pages; from += ledgerPages {
		if err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			select {
			case <-renew.C:
				if err := r.reserve(ctx, tx, names(p.Retired)); err != nil {
					return err
				}
			default:
			}
			if _, err := tx.Exec(ctx, mark.SQL); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, retireLedgerSQL, page(from), page(from+ledgerPages), writers)
			forgotten += tag.RowsAffected()
			return err
		}); err != nil {
			return forgotten, fmt.Errorf("forget events in the ledger: %w", err)
		}
	}
	return forgotten, nil
}
