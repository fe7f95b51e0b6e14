package ledger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// With the mark of package mark: claims wait for rows that are being deleted.
	retentionLockSQL = `select pg_catalog.pg_try_advisory_xact_lock($1) from pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, 0)`

	// The setting that the source of a function and cluster stored with its
	// checkpoints.
	noteKeepSQL = `update tandem.progress set keep = $3::interval where cluster = $1 and function = $2 and keep is distinct from $3::interval`

	// The clusters that count for a function, stream and epoch, and how long the function's
	// events are kept: the maximum of its clusters' settings. A cluster does not count if
	// another one has reported later by more than that. So if all clusters are silent, all of
	// them count. $1 is the caller's function and $2 its setting; $3 is that of other functions
	// without one.
	countedClusters = `with latest as (
    select p.*, coalesce(p.keep, case when p.function = $1 then $2::interval else $3::interval end) as set_keep,
        max(p.saved_at) over (partition by p.function) as function_latest,
        max(p.saved_at) over (partition by p.function, p.stream, p.epoch) as stream_latest
    from tandem.progress p
), kept as (
    select function, max(set_keep) as keep from latest where saved_at > function_latest - set_keep group by function
), counted as (
    select l.function, l.stream, l.epoch, l.floor, l.head, l.saved_at, k.keep
    from latest l join kept k on k.function = l.function where l.saved_at > l.stream_latest - k.keep
)`

	// Events that were committed before taken_at belong to messages below head. A source
	// determines its head a moment before it saves it, and a cluster that ended may have
	// committed for a moment afterwards; so the sample has the age of the oldest row plus a
	// minute.
	sampleSQL = countedClusters + `
insert into tandem.floor_sample (function, stream, epoch, taken_at, head)
select p.function, p.stream, p.epoch, min(p.saved_at) - interval '1 minute', max(p.head) from counted p
group by p.function, p.stream, p.epoch
having max(p.head) > 0 and not exists (select from tandem.floor_sample s
    where s.function = p.function and s.stream = p.stream and s.epoch = p.epoch
    and s.taken_at > min(p.saved_at) - interval '1 minute' - $4::interval)`

	// The guard of a stream is its youngest sample that is old enough and below which all
	// clusters have acknowledged every message. Null if there is none.
	guardedStreams = countedClusters + `, guarded as (
    select p.function, p.stream, p.epoch, min(p.keep) as keep, max(p.saved_at) as latest,
        (select max(s.taken_at) from tandem.floor_sample s
         where s.function = p.function and s.stream = p.stream and s.epoch = p.epoch
         and s.head <= min(p.floor) and s.taken_at <= now() - min(p.keep)) as guard
    from counted p group by p.function, p.stream, p.epoch
)`

	horizonSQL = guardedStreams + `
insert into tandem.horizon as h (function, stream, epoch, floor)
select s.function, s.stream, s.epoch, max(s.head)
from tandem.floor_sample s join guarded g on g.function = s.function and g.stream = s.stream and g.epoch = s.epoch and s.taken_at <= g.guard
group by s.function, s.stream, s.epoch
on conflict (function, stream, epoch) do update set floor = excluded.floor, moved_at = now() where excluded.floor > h.floor`

	// Samples below the horizon are not needed, except for the youngest.
	pruneSQL = `delete from tandem.floor_sample s using tandem.horizon h
where s.function = h.function and s.stream = h.stream and s.epoch = h.epoch and s.head < h.floor`

	// By function, the commit times of events that may be forgotten; under null, for functions
	// without a source, all times older than $4. Events that were committed after the guard of
	// their stream are kept, because their messages may be redelivered. For a silent stream
	// only those before its silence are kept, so that an abandoned stream does not keep later
	// events.
	spansSQL = guardedStreams + `, spans (function, span) as (
    select function, tstzmultirange(tstzrange(null, now() - min(keep)))
        - range_agg(tstzrange(coalesce(guard, '-infinity'), case when latest > now() - keep then 'infinity'
            else greatest(guard, latest + interval '1 minute') end))
    from guarded group by function
    union all
    select null, tstzmultirange(tstzrange(null, now() - $4::interval))
)
select function, span::text, upper(span) from spans`

	ledgerPagesSQL = `select pg_catalog.pg_relation_size('tandem.ledger') / pg_catalog.current_setting('block_size')::bigint`

	// Processes a range of the table's pages. It needs no index on the age, which would slow
	// down every insert. A row belongs to the function of its writer. $3 is the end of the
	// spans.
	forgetSQL = `with writers as (
    select distinct l.writer from tandem.ledger l where l.ctid >= $1::text::tid and l.ctid < $2::text::tid and l.committed_at < $3
), old as (
    select o.writer, coalesce(f.span, $6)::tstzmultirange as span
    from writers o left join tandem.writer w on w.writer = o.writer
    left join unnest($4::text[], $5::text[]) as f (function, span) on f.function = w.function
)
delete from tandem.ledger l using old o
where l.ctid >= $1::text::tid and l.ctid < $2::text::tid and l.committed_at < $3 and o.writer = l.writer and o.span @> l.committed_at
and not exists (select from tandem.dead_letter d where tandem.key(d.function, d.source, d.id) = l.key)
and not exists (select from tandem.blocked_event b where tandem.key(b.function, b.source, b.id) = l.key)
and not exists (select from tandem.deferred_event e where e.key = l.key)`

	loadHorizonSQL = `select floor::text from tandem.horizon where function = $1 and stream = $2 and epoch = $3`
)

// retentionLock is the advisory lock that a sweep holds for each of its ranges,
// so that one sweep runs at a time; an arbitrary number.
const retentionLock int64 = 7_402_261_302

const (
	// defaultKeep is how long events of functions without a setting are kept.
	defaultKeep = 7 * 24 * time.Hour

	// unknownKeep is the same for functions whose sources have not stored their setting yet,
	// such as those of an earlier version.
	unknownKeep = 90 * 24 * time.Hour
)

// RetentionConfig configures a [Retention]. The zero value is ready to use;
// the zero value of a field selects its default.
type RetentionConfig struct {
	// Cluster and Function identify the source whose setting Keep is. Both or none.
	// Defaults to none: then Keep applies to functions without a source.
	Cluster, Function string

	// Keep is how long the ledger remembers an event of the function after its
	// commit. If the function's clusters have different settings, the longest
	// counts. It must exceed any time after which an event may be delivered again
	// other than by the stream. At least 1 minute. Defaults to 7 days.
	Keep time.Duration

	// Pages is the number of pages of 8 KiB, with about 100 rows each, that one
	// transaction processes. From 1 to 100,000. Defaults to 256.
	Pages int

	// Pause is the time between two of these transactions. From 0 to 1 minute,
	// negative for none. Defaults to 20 ms.
	Pause time.Duration

	// Sample is the interval at which the heads of the streams are recorded.
	// The ledger remembers events that much longer than Keep. At least 1 ms.
	// Defaults to 15 minutes.
	Sample time.Duration
}

// Retention deletes events from the ledger that are older than Keep. It sweeps the rows of all
// functions, each with the setting that its sources stored, or else with 7 days or Keep,
// whichever is longer. It deletes only events that every cluster has acknowledged. Before that
// it records their stream position as the horizon: sources do not deliver messages below it. A
// cluster that is silent for longer than Keep does not count while another cluster of the
// function runs. Events that are deferred, have a dead letter, or wait behind one are kept.
//
// It is safe for concurrent use, and may run in several processes: one sweeps at a time.
type Retention struct {
	pool   *pgxpool.Pool
	config RetentionConfig
}

func (c RetentionConfig) withDefaults() RetentionConfig {
	c.Keep = cmp.Or(c.Keep, defaultKeep)
	c.Pages = cmp.Or(c.Pages, 256)
	c.Pause = cmp.Or(c.Pause, 20*time.Millisecond)
	c.Sample = cmp.Or(c.Sample, 15*time.Minute)
	return c
}

func (c RetentionConfig) validate() error {
	switch {
	case (c.Cluster == "") != (c.Function == ""):
		return fmt.Errorf("configure retention: Cluster %q and Function %q: want both or none", c.Cluster, c.Function)
	case c.Keep < time.Minute:
		return fmt.Errorf("configure retention: Keep %v: want 1m or more", c.Keep)
	case c.Pages < 1 || c.Pages > 100_000:
		return fmt.Errorf("configure retention: Pages %d: want 1 to 100000", c.Pages)
	case c.Pause > time.Minute:
		return fmt.Errorf("configure retention: Pause %v: want 1m or less", c.Pause)
	case c.Sample < time.Millisecond:
		return fmt.Errorf("configure retention: Sample %v: want 1ms or more", c.Sample)
	}
	return nil
}

// NewRetention returns the retention of the ledger in the database behind pool.
func NewRetention(pool *pgxpool.Pool, config RetentionConfig) (*Retention, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Retention{pool: pool, config: config}, nil
}

// errBusy means that another process is sweeping.
var errBusy = errors.New("another process is sweeping")

// Sweep moves the horizons and processes the whole ledger once, in short
// transactions with pauses between them; it blocks no writer. It returns the
// number of rows that were deleted, even if it returns an error. If another
// process is sweeping, it does nothing and returns 0.
func (r *Retention) Sweep(ctx context.Context) (forgotten int64, err error) {
	old, err := r.moveHorizons(ctx)
	if err == nil && !old.end.IsZero() {
		forgotten, err = r.sweep(ctx, old)
	}
	if errors.Is(err, errBusy) {
		return forgotten, nil
	}
	if err != nil {
		return forgotten, fmt.Errorf("delete old rows of the ledger: %w", err)
	}
	return forgotten, nil
}

// spans holds the commit times of events that may be deleted.
type spans struct {
	functions, spans []string  // multiranges of times, by function
	others           string    // of functions without a source
	end              time.Time // of all spans; zero if they are empty
}

// moveHorizons records the heads of the streams, stores the horizons, and returns the
// events that may be deleted.
func (r *Retention) moveHorizons(ctx context.Context) (old spans, err error) {
	config := r.config
	withoutSource, unknown := config.Keep, max(config.Keep, defaultKeep)
	if config.Function != "" { // Keep applies to this function only
		withoutSource, unknown = max(config.Keep, defaultKeep), max(config.Keep, unknownKeep)
	}
	err = r.alone(ctx, func(tx pgx.Tx) error {
		if config.Function != "" {
			if _, err := tx.Exec(ctx, noteKeepSQL, config.Cluster, config.Function, config.Keep); err != nil {
				return fmt.Errorf("record the retention of function %s: %w", config.Function, err)
			}
		}
		if _, err := tx.Exec(ctx, sampleSQL, config.Function, config.Keep, unknown, config.Sample); err != nil {
			return fmt.Errorf("record the heads of streams: %w", err)
		}
		if _, err := tx.Exec(ctx, horizonSQL, config.Function, config.Keep, unknown); err != nil {
			return fmt.Errorf("move the horizons: %w", err)
		}
		rows, err := tx.Query(ctx, spansSQL, config.Function, config.Keep, unknown, withoutSource)
		if err != nil {
			return fmt.Errorf("find events that may be deleted: %w", err)
		}
		var function *string
		var span string
		var end pgtype.Timestamptz
		if _, err := pgx.ForEachRow(rows, []any{&function, &span, &end}, func() error {
			if function == nil {
				old.others = span
			} else {
				old.functions, old.spans = append(old.functions, *function), append(old.spans, span)
			}
			if end.Valid && end.InfinityModifier == pgtype.Finite && end.Time.After(old.end) {
				old.end = end.Time
			}
			return nil
		}); err != nil {
			return fmt.Errorf("find events that may be deleted: %w", err)
		}
		if _, err := tx.Exec(ctx, pruneSQL); err != nil {
			return fmt.Errorf("drop old samples: %w", err)
		}
		return nil
	})
	return old, err
}

func (r *Retention) sweep(ctx context.Context, old spans) (forgotten int64, err error) {
	var pages int64
	if err := r.pool.QueryRow(ctx, ledgerPagesSQL).Scan(&pages); err != nil {
		return 0, fmt.Errorf("measure the ledger: %w", err)
	}
	page := func(n int64) string { return "(" + strconv.FormatInt(n, 10) + ",0)" }
	step := int64(r.config.Pages)
	for from := int64(0); from < pages; from += step {
		if err := r.alone(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, forgetSQL, page(from), page(from+step), old.end, old.functions, old.spans, old.others)
			forgotten += tag.RowsAffected()
			return err
		}); err != nil {
			return forgotten, err
		}
		select {
		case <-ctx.Done():
			return forgotten, ctx.Err()
		case <-time.After(r.config.Pause):
		}
	}
	return forgotten, nil
}

// alone runs fn in a transaction that holds the lock. It returns errBusy if another
// process holds the lock.
func (r *Retention) alone(ctx context.Context, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, retentionLockSQL, retentionLock).Scan(&locked); err != nil {
			return fmt.Errorf("take the lock: %w", err)
		}
		if !locked {
			return errBusy
		}
		return fn(tx)
	})
}

// Horizon returns the sequence number below which the ledger may have forgotten a
// function's messages of a stream; a source does not deliver them. It is zero if
// nothing was forgotten.
func (p *Checkpoints) Horizon(ctx context.Context, function, stream, epoch string) (uint64, error) {
	var text string
	err := p.pool.QueryRow(ctx, loadHorizonSQL, function, stream, epoch).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("load horizon of function %s in stream %s: %w", function, stream, err)
	}
	floor, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("load horizon of function %s in stream %s: %w", function, stream, err)
	}
	return floor, nil
}
