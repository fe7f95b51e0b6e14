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
	retentionLockSQL = `select pg_catalog.pg_try_advisory_xact_lock($1)`

	// A sample says: what was committed before taken_at belongs to messages below
	// head. A source finds its head a moment before it saves it, and a cluster
	// that is gone may have gone on for a moment after; so the sample is as old
	// as the oldest of the rows, and a minute older.
	sampleSQL = `insert into tandem.floor_sample (function, stream, epoch, taken_at, head)
select p.function, p.stream, p.epoch, min(p.saved_at) - interval '1 minute', max(p.head) from tandem.progress p
where p.saved_at > now() - $2::interval
group by p.function, p.stream, p.epoch
having max(p.head) > 0 and not exists (select from tandem.floor_sample s
    where s.function = p.function and s.stream = p.stream and s.epoch = p.epoch
    and s.taken_at > min(p.saved_at) - interval '1 minute' - $1::interval)`

	// The youngest moment before which everything that was committed belongs to
	// messages that every cluster has acknowledged by now. Clusters that have not
	// been heard of for as long as the retention do not count.
	cutoffSQL = `select least(now() - $1::interval, min(coalesce(guard, '-infinity')))
from (
    select (select max(s.taken_at) from tandem.floor_sample s
            where s.function = p.function and s.stream = p.stream and s.epoch = p.epoch and s.head <= min(p.floor)) as guard
    from tandem.progress p where p.saved_at > now() - $1::interval
    group by p.function, p.stream, p.epoch
) as guards`

	horizonSQL = `insert into tandem.horizon as h (function, stream, epoch, floor)
select function, stream, epoch, max(head) from tandem.floor_sample where taken_at <= $1
group by function, stream, epoch
on conflict (function, stream, epoch) do update set floor = excluded.floor, moved_at = now() where excluded.floor > h.floor`

	// Samples below the horizon have done their work, but for the youngest.
	pruneSQL = `delete from tandem.floor_sample s using tandem.horizon h
where s.function = h.function and s.stream = h.stream and s.epoch = h.epoch and s.head < h.floor`

	ledgerPagesSQL = `select pg_catalog.pg_relation_size('tandem.ledger') / pg_catalog.current_setting('block_size')::bigint`

	// A piece of the table by its pages: it needs no index on the age, which
	// every insert would pay for.
	forgetSQL = `delete from tandem.ledger l
where l.ctid >= $1::text::tid and l.ctid < $2::text::tid and l.committed_at < $3
and not exists (select from tandem.dead_letter d where tandem.key(d.function, d.source, d.id) = l.key)
and not exists (select from tandem.blocked_event b where tandem.key(b.function, b.source, b.id) = l.key)
and not exists (select from tandem.deferred_event e where e.key = l.key)`

	loadHorizonSQL = `select floor::text from tandem.horizon where function = $1 and stream = $2 and epoch = $3`
)

// retentionLock is the advisory lock that one sweep at a time holds for each of
// its pieces, an arbitrary number.
const retentionLock int64 = 7_402_261_302

// RetentionConfig sets up a [Retention]. The zero RetentionConfig is ready to
// use; a field left at zero takes the default named beside it.
type RetentionConfig struct {
	// Keep is how long the ledger remembers an event after it was committed. It
	// must exceed any time after which an event may be delivered again other
	// than by the stream. At least 1 minute. Defaults to 7 days.
	Keep time.Duration

	// Pages is how much of the table one transaction looks at, in pages of
	// 8 KiB: about 100 rows each. From 1 to 100,000. Defaults to 256.
	Pages int

	// Pause is the time between two such transactions. From 0 to 1 minute,
	// negative for none. Defaults to 20 ms.
	Pause time.Duration

	// Sample is how often the heads of the streams are noted down. The ledger
	// remembers that much longer than Keep. At least 1 ms. Defaults to
	// 15 minutes.
	Sample time.Duration
}

// Retention lets the ledger forget what is older than Keep. Only what every
// cluster has acknowledged is forgotten, and the stream position that goes with
// it is noted as the horizon before: sources do not deliver what lies below. The
// rows of events stay that are deferred, have a dead letter, or wait behind one.
//
// It may be shared, and run in several processes: one works at a time.
type Retention struct {
	pool   *pgxpool.Pool
	config RetentionConfig
}

func (c RetentionConfig) withDefaults() RetentionConfig {
	c.Keep = cmp.Or(c.Keep, 7*24*time.Hour)
	c.Pages = cmp.Or(c.Pages, 256)
	c.Pause = cmp.Or(c.Pause, 20*time.Millisecond)
	c.Sample = cmp.Or(c.Sample, 15*time.Minute)
	return c
}

func (c RetentionConfig) validate() error {
	switch {
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

// NewRetention gives the retention of the ledger in the database behind pool.
func NewRetention(pool *pgxpool.Pool, config RetentionConfig) (*Retention, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Retention{pool: pool, config: config}, nil
}

// errBusy says that another process is at it.
var errBusy = errors.New("another process is at work")

// Sweep moves the horizon and goes once through the ledger, in short
// transactions with pauses between them; it blocks no writer. It gives the
// number of rows that were forgotten, also with an error. If another process is
// at it, it does nothing and says so by zero.
func (r *Retention) Sweep(ctx context.Context) (forgotten int64, err error) {
	cutoff, err := r.moveHorizon(ctx)
	if err == nil && cutoff.InfinityModifier == pgtype.Finite {
		forgotten, err = r.sweep(ctx, cutoff.Time)
	}
	if errors.Is(err, errBusy) {
		return forgotten, nil
	}
	if err != nil {
		return forgotten, fmt.Errorf("forget old rows of the ledger: %w", err)
	}
	return forgotten, nil
}

// moveHorizon notes how far the streams are, finds out what may be forgotten,
// and writes the horizon that belongs to it.
func (r *Retention) moveHorizon(ctx context.Context) (cutoff pgtype.Timestamptz, err error) {
	err = r.alone(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sampleSQL, r.config.Sample, r.config.Keep); err != nil {
			return fmt.Errorf("note the heads of streams: %w", err)
		}
		if err := tx.QueryRow(ctx, cutoffSQL, r.config.Keep).Scan(&cutoff); err != nil {
			return fmt.Errorf("find the cutoff: %w", err)
		}
		if _, err := tx.Exec(ctx, horizonSQL, cutoff); err != nil {
			return fmt.Errorf("move the horizon: %w", err)
		}
		if _, err := tx.Exec(ctx, pruneSQL); err != nil {
			return fmt.Errorf("drop old samples: %w", err)
		}
		return nil
	})
	return cutoff, err
}

func (r *Retention) sweep(ctx context.Context, cutoff time.Time) (forgotten int64, err error) {
	var pages int64
	if err := r.pool.QueryRow(ctx, ledgerPagesSQL).Scan(&pages); err != nil {
		return 0, fmt.Errorf("measure the ledger: %w", err)
	}
	page := func(n int64) string { return "(" + strconv.FormatInt(n, 10) + ",0)" }
	step := int64(r.config.Pages)
	for from := int64(0); from < pages; from += step {
		if err := r.alone(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, forgetSQL, page(from), page(from+step), cutoff)
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

// alone runs fn in a transaction that holds the lock, if nobody else does.
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

// Horizon gives the sequence number below which the ledger may have forgotten
// messages of a stream for a function; a source does not deliver them. Zero
// says that nothing was forgotten.
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
