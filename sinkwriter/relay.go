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
	// relayRows and relayBytes bound what one pass of the relay takes over, except for one
	// row that is larger.
	relayRows  = 1024
	relayBytes = 8 << 20

	// relaySave bounds the saving of what a call has published.
	relaySave = 3 * time.Second

	// A pass looks at what became overdue in the last minSpan first, and then at older rows in
	// pieces, for as long as lookFor: the next pass continues. A piece that takes less than
	// quickLook on the server makes the next one longer, and one that takes more than slowLook
	// shorter. A piece of maxSpan has everything: where few rows are dead, the first one.
	minSpan, maxSpan    = time.Minute, 24 * time.Hour
	quickLook, slowLook = 20 * time.Millisecond, 100 * time.Millisecond
	lookFor             = 250 * time.Millisecond
	allOverdue          = 100 * 365 * 24 * time.Hour

	// Rows that became overdue between two times ago, $3 and $4. A piece of the index: behind a
	// long snapshot, as that of a dump, it is full of rows that were deleted long ago.
	takeoverSQL = `with overdue as (
  select id, due, octet_length(events) as size from tandem.outbox
  where due >= now() - $3::interval and due < now() - $4::interval order by due limit $1 for update skip locked
), taken as (
  select id from (select id, size, sum(size) over (order by due, id) as bytes from overdue) as o where bytes - size < $2
)
update tandem.outbox set due = pg_catalog.clock_timestamp() + interval '30 seconds' where id in (select id from taken) returning id, events`

	elapsedSQL = `select pg_catalog.clock_timestamp() - now()`

	// Rows that the relay did not come to: they are due for the next pass.
	outboxReturnSQL = `update tandem.outbox set due = pg_catalog.clock_timestamp() where id = any($1::bigint[])`

	// The size of what is stored, without fetching it: long values are measured by what
	// points to them.
	backlogBytesSQL = `select coalesce(sum(pg_catalog.pg_column_size(events)), 0)::bigint from tandem.outbox`

	// The size of the outbox with all that is deleted: the backlog is not larger.
	outboxFilesSQL = `select pg_catalog.pg_table_size('tandem.outbox')`

	backlogSQL = `select coalesce(sum(pg_catalog.json_array_length(events::json)), 0) from tandem.outbox`
)

// Outbox is the relay's view of the outputs that are committed and not yet known to be
// published. It is safe for concurrent use.
type Outbox struct {
	pool *pgxpool.Pool

	mu     sync.Mutex
	span   time.Duration // of the next piece
	looked time.Duration // ago: what became overdue later was looked at
	size   int           // events in a call
}

// NewOutbox returns the outbox of the database behind pool.
func NewOutbox(pool *pgxpool.Pool) *Outbox { return &Outbox{pool: pool, span: minSpan, size: 512} }

// Relay takes over rows that are overdue, since their winner is not at work on them any
// more, and publishes their events outside any transaction. Publish is called with a few at a
// time, and again for the next ones while a call takes long. Events that are stored leave
// the outbox, whatever happens to the others. Events that are rejected for good are set
// aside as rejected outputs. Others are due again after 30 s, or at once if publish did
// not come to them before ctx ended. Several relays may run at once.
//
// It returns how many events were published and how many rejected. 0, 0 without an error
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

// all publishes the rows, in calls of a few. While one takes longer than callPatience, the
// next one begins, as it may be one event that takes so long.
func (r *relaying) all(ctx context.Context, rows []outboxRow) {
	places := make(chan struct{}, maxCalls)
	var calls sync.WaitGroup
	defer calls.Wait()
	for len(rows) > 0 {
		var call []outboxRow
		call, rows = r.outbox.some(rows)
		select {
		case places <- struct{}{}:
		case <-ctx.Done(): // as publish would find
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

// some divides rows into those of one call and the rest.
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

// call publishes the events of rows, and saves the outcome.
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

// pace sets the size of calls: smaller after one that took long, or was cut short.
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

// save saves which events of rows are published, rejected or neither.
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
		// Ctx may have ended; what is published would be published again.
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

// divide returns the events that are neither stored nor rejected, with a reason why, and
// the rejected ones. That a context ended is the reason only if there is no other.
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

// takeOver returns rows that are overdue and were not before: those that became so lately,
// or else older ones. A row that cannot be read is in the error, beside the others.
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

// piece returns the next piece of the overdue rows to look at: how long ago they became so.
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

// pieceLooked notes that a piece has no more rows to take over, and reports whether it was the
// last one. Then the next pass begins at the first.
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

// takePiece takes over rows of a piece, and returns how long that took on the server.
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

// Bytes returns the size of the outputs in the outbox, as stored: what
// [Config].BacklogBytes bounds. It takes less than to count them.
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
