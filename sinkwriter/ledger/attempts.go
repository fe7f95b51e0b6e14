package ledger

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	saveTriesSQL = fence9 + `insert into tandem.tries as t (cluster, function, stream, epoch, sequence, tries, tried_ms, strikes)
select $1, $2, $3, $4, s::numeric, n, ms, k from unnest($5::text[], $6::integer[], $7::bigint[], $8::integer[]) as u(s, n, ms, k)
where ` + may9 + `
on conflict (cluster, function, stream, sequence) do update
set epoch = excluded.epoch, tries = excluded.tries, tried_ms = excluded.tried_ms, strikes = excluded.strikes, saved_at = now()`

	forgetTriesSQL = `delete from tandem.tries where cluster = $1 and function = $2 and stream = $3 and sequence = any($4::text[]::numeric[])`

	staleTriesSQL = `delete from tandem.tries where cluster = $1 and function = $2 and stream = $3 and epoch <> $4`

	loadTriesSQL = `select sequence::text, tries, tried_ms, strikes from tandem.tries where cluster = $1 and function = $2 and stream = $3 and epoch = $4`
)

// Attempts stores the failed attempts of events that fail in a function, for one cluster.
// It is safe for concurrent use.
type Attempts struct {
	pool    *pgxpool.Pool
	cluster string
	lease   lease.Lease
}

// NewAttempts returns the attempts of one cluster in the database behind pool.
func NewAttempts(pool *pgxpool.Pool, cluster string) *Attempts {
	return &Attempts{pool: pool, cluster: cluster}
}

// With returns Attempts for a replica with a lease: Save stores nothing after another
// replica has acquired the lease.
func (t *Attempts) With(held lease.Lease) *Attempts {
	with := *t
	with.lease = held
	return &with
}

// EventAttempts is how often and for how long an event failed in the function.
type EventAttempts struct {
	Sequence uint64
	Attempts int
	For      time.Duration // stored in milliseconds
	Strikes  int           // how often the process ended while it processed this event alone
}

// Save stores tries, replacing stored attempts, and deletes those with the
// sequence numbers in settled.
func (t *Attempts) Save(ctx context.Context, function, stream, epoch string, tries []EventAttempts, settled []uint64) error {
	sequences, counts, times := make([]string, len(tries)), make([]int32, len(tries)), make([]int64, len(tries))
	strikes := make([]int32, len(tries))
	for i, e := range tries {
		strikes[i] = int32(min(e.Strikes, 1<<30))
		sequences[i], counts[i], times[i] = number(e.Sequence), int32(min(e.Attempts, 1<<30)), e.For.Milliseconds()
	}
	gone := make([]string, len(settled))
	for i, s := range settled {
		gone[i] = number(s)
	}
	batch := &pgx.Batch{}
	if len(tries) > 0 {
		batch.Queue(saveTriesSQL, t.cluster, function, stream, epoch, sequences, counts, times, strikes, t.lease.Fence())
	}
	if len(settled) > 0 {
		batch.Queue(forgetTriesSQL, t.cluster, function, stream, gone)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := t.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("save attempts of function %s in stream %s: %w", function, stream, err)
	}
	return nil
}

// Load returns the stored attempts for this epoch of the stream. It deletes the attempts of
// other epochs, and returns their number.
func (t *Attempts) Load(ctx context.Context, function, stream, epoch string) (attempts []EventAttempts, stale int, err error) {
	fail := func(err error) ([]EventAttempts, int, error) {
		return nil, 0, fmt.Errorf("load attempts of function %s in stream %s: %w", function, stream, err)
	}
	rows, err := t.pool.Query(ctx, loadTriesSQL, t.cluster, function, stream, epoch)
	if err != nil {
		return fail(err)
	}
	attempts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e EventAttempts, err error) {
		var sequence string
		var ms int64
		if err := row.Scan(&sequence, &e.Attempts, &ms, &e.Strikes); err != nil {
			return e, err
		}
		e.For = time.Duration(ms) * time.Millisecond
		e.Sequence, err = strconv.ParseUint(sequence, 10, 64)
		return e, err
	})
	if err != nil {
		return fail(err)
	}
	deleted, err := t.pool.Exec(ctx, staleTriesSQL, t.cluster, function, stream, epoch)
	if err != nil {
		return fail(err)
	}
	return attempts, int(deleted.RowsAffected()), nil
}
