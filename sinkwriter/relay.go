package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
)

const (
	// relayRows and relayBytes bound what one pass of the relay takes over, unless a
	// single row is larger.
	relayRows  = 1024
	relayBytes = 8 << 20

	// relaySave bounds the time to save the outcome of a call.
	relaySave = 3 * time.Second

	// A pass first reads the rows that became overdue within the last minSpan, and then older
	// ones in pieces, for as long as lookFor; the next pass continues there. If the server
	// takes less than quickLook for a piece the next one is longer, and if it takes more than
	// slowLook, shorter. A piece of maxSpan includes everything. With few dead rows the first
	// older piece is that long.
	minSpan, maxSpan    = time.Minute, 24 * time.Hour
	quickLook, slowLook = 20 * time.Millisecond, 100 * time.Millisecond
	lookFor             = 250 * time.Millisecond
	allOverdue          = 100 * 365 * 24 * time.Hour

	// Rows that became overdue between $3 and $4 ago. It reads a piece of the index, because
	// behind a long snapshot, such as that of a dump, the index is full of rows that were
	// deleted long ago.
	takeoverSQL = `with overdue as (
  select id, due, octet_length(events) as size from tandem.outbox
  where due >= now() - $3::interval and due < now() - $4::interval order by due limit $1 for update skip locked
), taken as (
  select id from (select id, size, sum(size) over (order by due, id) as bytes from overdue) as o where bytes - size < $2
)
update tandem.outbox set due = pg_catalog.clock_timestamp() + interval '30 seconds' where id in (select id from taken) returning id, events`

	elapsedSQL = `select pg_catalog.clock_timestamp() - now()`

	// Rows that the relay did not reach: they are due for the next pass.
	outboxReturnSQL = `update tandem.outbox set due = pg_catalog.clock_timestamp() where id = any($1::bigint[])`

	// The size of the stored rows, without fetching them: TOAST pointers contain the
	// length of long values.
	backlogBytesSQL = `select coalesce(sum(pg_catalog.pg_column_size(events)), 0)::bigint from tandem.outbox`

	// The size of the outbox including deleted rows: an upper bound of the
	// backlog.
	outboxFilesSQL = `select pg_catalog.pg_table_size('tandem.outbox')`

	backlogSQL = `select coalesce(sum(pg_catalog.json_array_length(events::json)), 0) from tandem.outbox`
)

// Outbox is the relay's view of the outputs that are committed and not known to be
// published. It is safe for concurrent use.
type Outbox struct {
	pool *pgxpool.Pool

	mu     sync.Mutex
	span   time.Duration // of the next piece
	looked time.Duration // ago: rows that became overdue later were read
	size   int           // number of events in a call
}

// NewOutbox returns the outbox of the database behind pool.
func NewOutbox(pool *pgxpool.Pool) *Outbox { return &Outbox{pool: pool, span: minSpan, size: 512} }

// Relay takes over the rows that are overdue, because their winner stopped publishing them,
// and publishes their events outside any transaction. It calls publish with a few events at a
// time, and calls it concurrently for the next ones while a call is slow. Stored events leave
// the outbox, whatever the outcome of the others. Events that are rejected for good become
// rejected outputs. Other events are due again after 30 s, or immediately if ctx ended before
// publish reached them. Several relays may run at the same time.
//
// It returns how many events were published and how many were rejected. 0, 0 without an error
// means that nothing was overdue.
func (b *Outbox) Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (published, rejected int, err error) {
	rows, unreadable := b.takeOver(ctx)
	r := relaying{outbox: b, publish: publish, errs: []error{unreadable}}
	r.all(ctx, rows)
	if err := ctx.Err(); err != nil && len(rows) > 0 && r.published+r.rejected == 0 {
		r.errs = append(r.errs, fmt.Errorf("publish %d overdue outputs: %w", eventsOf(rows), err))
	}
	return r.published, r.rejected, errors.Join(r.errs...)
}

// relaying is one pass of the relay.
type relaying struct {
	outbox  *Outbox
	publish func(context.Context, []event.Event) error

	mu                  sync.Mutex
	published, rejected int
	errs                []error
}

// all publishes the rows, in calls of a few events. If one takes longer than callPatience,
// the next one starts, because a single event may cause the delay.
func (r *relaying) all(ctx context.Context, rows []outboxRow) {
	places := make(chan struct{}, maxCalls)
	var calls sync.WaitGroup
	defer calls.Wait()
	for len(rows) > 0 {
		var call []outboxRow
		call, rows = r.outbox.some(rows)
		select {
		case places <- struct{}{}:
		case <-ctx.Done(): // publish would return the same
			r.save(ctx, call, contract.ReasonsOf(ctx.Err(), eventsOf(call)))
			continue
		}
		done := make(chan struct{})
		calls.Go(func() {
			defer close(done)
			defer func() { <-places }()
			r.call(ctx, call)
		})
		patience := time.NewTimer(callPatience)
		select {
		case <-done:
		case <-patience.C:
		}
		patience.Stop()
	}
}

// some splits rows into those of the next call and the rest.
func (b *Outbox) some(rows []outboxRow) (call, rest []outboxRow) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := 0
	for i, r := range rows {
		if events += len(r.events); i > 0 && events > b.size {
			return rows[:i:i], rows[i:]
		}
	}
	return rows, nil
}

func eventsOf(rows []outboxRow) (n int) {
	for _, r := range rows {
		n += len(r.events)
	}
	return n
}

// call publishes the events of rows and saves the outcome.
func (r *relaying) call(ctx context.Context, rows []outboxRow) {
	events := make([]event.Event, 0, eventsOf(rows))
	for _, row := range rows {
		events = append(events, row.events...)
	}
	begin := now()
	err := r.publish(ctx, events)
	r.outbox.pace(now().Sub(begin), len(events), err != nil && ctx.Err() != nil)
	r.save(ctx, rows, contract.ReasonsOf(err, len(events)))
}

// pace adjusts the size of calls: smaller after a call that was slow or cut short.
func (b *Outbox) pace(took time.Duration, events int, cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case took > slowCall, cut:
		b.size = max(b.size/2, minCall)
	case took < quickCall && events >= b.size/2:
		b.size = min(b.size*2, maxCall)
	}
}

// save records which events of rows are published, rejected or neither.
func (r *relaying) save(ctx context.Context, rows []outboxRow, reasons []error) {
	batch := &pgx.Batch{}
	batch.Queue(mark.SQL)
	var done, untried []int64
	var errs []error
	published, rejected := 0, 0
	for _, row := range rows {
		left, refused, other := divide(row.events, reasons[:len(row.events)])
		reasons = reasons[len(row.events):]
		published += len(row.events) - len(left) - len(refused)
		rejected += len(refused)
		late := other != nil && ctx.Err() != nil && contextEnded(other)
		switch {
		case len(left) == 0 && len(refused) == 0:
			done = append(done, row.id)
		case len(left) < len(row.events):
			statements, err := saveSteps(row.id, left, refused, late)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, s := range statements {
				batch.Queue(s.sql, s.arguments...)
			}
		}
		if late && len(left) == len(row.events) {
			untried = append(untried, row.id)
		}
		if other != nil && !late {
			errs = append(errs, fmt.Errorf("publish %d overdue outputs of row %d of the outbox: %w", len(left), row.id, other))
		}
	}
	if len(done) > 0 {
		batch.Queue(outboxDeleteSQL, done)
	}
	if len(untried) > 0 {
		batch.Queue(outboxReturnSQL, untried)
	}
	if batch.Len() > 1 {
		// Ctx may have ended, and unsaved events would be published again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relaySave)
		defer cancel()
		if err := r.outbox.pool.SendBatch(ctx, batch).Close(); err != nil {
			errs = append(errs, fmt.Errorf("remove %d published outputs from the outbox: %w", published, err))
			published, rejected = 0, 0
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published += published
	r.rejected += rejected
	r.errs = append(r.errs, errs...)
}

// divide returns the events that are neither stored nor rejected, with the reason of one
// of them, and the rejected events. The reason is the end of a context only if there is
// no other.
func divide(events []event.Event, reasons []error) (left []event.Event, rejected []rejectedOutput, other error) {
	for i, reason := range reasons {
		var rejection *contract.Rejection
		switch {
		case reason == nil:
		case errors.As(reason, &rejection):
			rejected = append(rejected, rejectedOutput{event: events[i], code: rejection.Code, reason: reason.Error()})
		default:
			left = append(left, events[i])
			if other == nil || contextEnded(other) {
				other = reason
			}
		}
	}
	return left, rejected, other
}

func contextEnded(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// takeOver returns rows that are newly overdue: the most recent ones or else older ones.
// Rows that cannot be decoded are in the error, next to the others.
func (b *Outbox) takeOver(ctx context.Context) ([]outboxRow, error) {
	begin := now()
	from, to := b.piece(true)
	for {
		rows, took, err := b.takePiece(ctx, from, to)
		if len(rows) > 0 || err != nil {
			return rows, err
		}
		if ended := b.pieceLooked(from, took); ended || now().Sub(begin) > lookFor {
			return nil, nil
		}
		from, to = b.piece(false)
	}
}

// piece returns the next piece of the overdue rows to read, as how long ago they became
// overdue.
func (b *Outbox) piece(first bool) (from, to time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !first {
		to = b.looked
	}
	if b.span >= maxSpan {
		return allOverdue, to
	}
	return to + b.span, to
}

// pieceLooked records that a piece has no more rows to take over, and reports whether it was
// the last one. After the last one the next pass starts at the first.
func (b *Outbox) pieceLooked(from, took time.Duration) (last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case took < quickLook:
		b.span = min(4*b.span, maxSpan)
	case took > slowLook && b.span > minSpan:
		b.span = max(b.span/4, minSpan)
	}
	b.looked = max(b.looked, from)
	if last = from == allOverdue; last {
		b.looked = 0
	}
	return last
}

// takePiece takes over the rows of a piece, and returns how long that took on the
// server.
func (b *Outbox) takePiece(ctx context.Context, from, to time.Duration) (taken []outboxRow, took time.Duration, err error) {
	var unreadable error
	batch := &pgx.Batch{}
	batch.Queue(mark.SQL)
	batch.Queue(takeoverSQL, relayRows, relayBytes, from, to).Query(func(rows pgx.Rows) (err error) {
		taken, unreadable, err = collectRows(rows)
		return err
	})
	batch.Queue(elapsedSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&took) })
	if err := b.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, 0, fmt.Errorf("take over overdue outputs: %w", err)
	}
	return taken, took, unreadable
}

// Bytes returns the stored size of the outputs in the outbox, which
// [Config].BacklogBytes bounds. It is faster than counting them.
func (b *Outbox) Bytes(ctx context.Context) (int64, error) {
	var n int64
	if err := b.pool.QueryRow(ctx, backlogBytesSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("measure the outbox: %w", err)
	}
	return n, nil
}

// Backlog returns the number of events in the outbox.
func (b *Outbox) Backlog(ctx context.Context) (int64, error) {
	var n int64
	if err := b.pool.QueryRow(ctx, backlogSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("count outputs in the outbox: %w", err)
	}
	return n, nil
}
