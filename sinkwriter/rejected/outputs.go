// Package rejected lists the outputs of committed events that their stream or sink
// rejected for good, and replays or drops them ([Outputs]).
package rejected

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// From the output after ($1, $2, $3) on, the oldest first.
	listSQL = `select source, id, type, code, reason, times, first_at, last_at, event ->> 'causationid' from tandem.rejected_output
where ($1::timestamptz is null or (first_at, source, id) > ($1, $2, $3))
and ($4 = '' or source = $4) and ($5 = '' or id = $5) and ($6 = '' or type = $6) and ($7 = 0 or code = $7)
and ($8 = '' or strpos(lower(reason), lower($8)) > 0) and ($9 = '' or event ->> 'causationid' = $9)
and ($10::timestamptz is null or last_at >= $10) and ($11::timestamptz is null or last_at < $11)
order by first_at, source, id limit $12`

	readSQL = `select event from tandem.rejected_output where source = $1 and id = $2`

	dropSQL = `delete from tandem.rejected_output where source = $1 and id = $2 and last_at <= $3`

	replaySQL = `with replayed as (
  delete from tandem.rejected_output where source = $1 and id = $2 and last_at <= $3 returning event
)
insert into tandem.outbox (id, due, events) overriding system value select $4, pg_catalog.clock_timestamp(), '[' || event || ']' from replayed`

	countSQL = `select count(*) from tandem.rejected_output`
)

// Output is an output that was rejected.
type Output struct {
	Source   string    `json:"source"` // /tandem/ and the function
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	Code     int       `json:"code"` // the HTTP status of the answer; 413 if it is too large for the stream
	Reason   string    `json:"reason"`
	Times    int64     `json:"times"` // how often it was rejected
	FirstAt  time.Time `json:"first_at"`
	LastAt   time.Time `json:"last_at"`
	CausedBy *string   `json:"caused_by"` // the id of the event
}

// Filter selects outputs. The zero value of a field selects all.
type Filter struct {
	Source, ID, Type string

	// CausedBy is the id of the event that produced the output.
	CausedBy string

	// Code is the status.
	Code int

	// Reason is a part of the reason, regardless of case.
	Reason string

	// Since and Until bound the time at which the output was last rejected.
	Since, Until time.Time
}

// Outputs lists, replays and drops the rejected outputs of all functions and clusters. To
// replay and drop them its role must be the one that migrates. It is safe for concurrent
// use.
type Outputs struct{ pool *pgxpool.Pool }

// New returns the rejected outputs in the database behind pool.
func New(pool *pgxpool.Pool) *Outputs { return &Outputs{pool: pool} }

// List returns at most limit outputs, oldest rejection first. If after is not nil, the
// list starts behind that output.
func (o *Outputs) List(ctx context.Context, f Filter, after *Output, limit int) ([]Output, error) {
	var from Output
	if after != nil {
		from = *after
	}
	rows, err := o.pool.Query(ctx, listSQL, orNull(from.FirstAt), from.Source, from.ID,
		f.Source, f.ID, f.Type, f.Code, f.Reason, f.CausedBy, orNull(f.Since), orNull(f.Until), limit)
	if err != nil {
		return nil, fmt.Errorf("list rejected outputs: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Output])
	if err != nil {
		return nil, fmt.Errorf("list rejected outputs: %w", err)
	}
	return list, nil
}

// ErrNotFound means that an output is not among the rejected ones, or no longer is.
var ErrNotFound = errors.New("it is not a rejected output")

// Read returns an output as a CloudEvent in JSON, or [ErrNotFound].
func (o *Outputs) Read(ctx context.Context, source, id string) (json.RawMessage, error) {
	var text json.RawMessage
	err := o.pool.QueryRow(ctx, readSQL, source, id).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read rejected output %s of %s: %w", id, source, err)
	}
	return text, nil
}

// Replay moves an output back into the outbox, where it is due for a relay. It returns
// [ErrNotFound], and moves nothing, if the output was rejected again since it was
// listed.
func (o *Outputs) Replay(ctx context.Context, output Output) error {
	row := int64(rand.Uint64()&(1<<62-1) | 1<<62) // like the writer's ids
	return o.change(ctx, "replay", output, replaySQL, output.Source, output.ID, output.LastAt, row)
}

// Drop deletes an output. It returns [ErrNotFound], and deletes nothing, if the
// output was rejected again since it was listed.
func (o *Outputs) Drop(ctx context.Context, output Output) error {
	return o.change(ctx, "drop", output, dropSQL, output.Source, output.ID, output.LastAt)
}

func (o *Outputs) change(ctx context.Context, verb string, output Output, sql string, args ...any) error {
	tag, err := o.pool.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s rejected output %s of %s: %w", verb, output.ID, output.Source, err)
	}
	return nil
}

// Count returns the number of rejected outputs.
func (o *Outputs) Count(ctx context.Context) (int64, error) {
	var n int64
	if err := o.pool.QueryRow(ctx, countSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("count rejected outputs: %w", err)
	}
	return n, nil
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
