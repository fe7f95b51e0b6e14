package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

const (
	// relayRows and relayBytes bound what one pass of the relay takes over, except for one
	// row that is larger.
	relayRows  = 1024
	relayBytes = 16 << 20

	// relaySave bounds the saving of what a pass has published.
	relaySave = 3 * time.Second

	takeoverSQL = `with overdue as (
  select id, due, octet_length(events) as size from tandem.outbox where due < pg_catalog.clock_timestamp() order by due limit $1 for update skip locked
), taken as (
  select id from (select id, size, sum(size) over (order by due, id) as bytes from overdue) as o where bytes - size < $2
)
update tandem.outbox set due = pg_catalog.clock_timestamp() + interval '30 seconds' where id in (select id from taken) returning id, events`

	// Rows that the relay did not come to: they are due for the next pass.
	outboxReturnSQL = `update tandem.outbox set due = pg_catalog.clock_timestamp() where id = any($1::bigint[])`

	// The size of what is stored, without fetching it: long values are measured by what
	// points to them.
	backlogBytesSQL = `select coalesce(sum(pg_catalog.pg_column_size(events)), 0)::bigint from tandem.outbox`

	backlogSQL = `select coalesce(sum(pg_catalog.json_array_length(events::json)), 0) from tandem.outbox`
)

// Outbox is the relay's view of the outputs that are committed and not yet known to be
// published. It is safe for concurrent use.
type Outbox struct {
	pool *pgxpool.Pool
}

// NewOutbox returns the outbox of the database behind pool.
func NewOutbox(pool *pgxpool.Pool) *Outbox { return &Outbox{pool: pool} }

// Relay takes over rows that are overdue, since their winner is not at work on them any
// more, and publishes their events outside any transaction. Events that are stored leave
// the outbox, whatever happens to the others. Events that are rejected for good are set
// aside as rejected outputs. Others are due again after 30 s, or at once if publish did
// not come to them before ctx ended. Several relays may run at once.
//
// It returns how many events were published and how many rejected. 0, 0 without an error
// means that nothing was overdue.
func (b *Outbox) Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (published, rejected int, err error) {
	rows, unreadable := b.takeOver(ctx)
	if len(rows) == 0 {
		return 0, 0, unreadable
	}
	var all []event.Event
	for _, r := range rows {
		all = append(all, r.events...)
	}
	failed := publish(ctx, all)
	reasons := contract.ReasonsOf(failed, len(all))
	batch := &pgx.Batch{}
	var done, untried []int64
	var errs []error
	for _, r := range rows {
		left, refused, other := divide(r.events, reasons[:len(r.events)])
		reasons = reasons[len(r.events):]
		published += len(r.events) - len(left) - len(refused)
		rejected += len(refused)
		late := other != nil && ctx.Err() != nil && contextEnded(other)
		switch {
		case len(left) == 0 && len(refused) == 0:
			done = append(done, r.id)
		case len(left) < len(r.events):
			statements, err := saveSteps(r.id, left, refused, late)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			for _, s := range statements {
				batch.Queue(s.sql, s.arguments...)
			}
		}
		if late && len(left) == len(r.events) {
			untried = append(untried, r.id)
		}
		if other != nil && !late {
			errs = append(errs, fmt.Errorf("publish %d overdue outputs of row %d of the outbox: %w", len(left), r.id, other))
		}
	}
	if len(done) > 0 {
		batch.Queue(outboxDeleteSQL, done)
	}
	if len(untried) > 0 {
		batch.Queue(outboxReturnSQL, untried)
	}
	if failed != nil && published+rejected == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("publish %d overdue outputs: %w", len(all), failed))
	}
	if batch.Len() > 0 {
		// Ctx may have ended; what is published would be published again.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), relaySave)
		defer cancel()
		if err := b.pool.SendBatch(ctx, batch).Close(); err != nil {
			return 0, 0, fmt.Errorf("remove %d published outputs from the outbox: %w", published, err)
		}
	}
	return published, rejected, errors.Join(append(errs, unreadable)...)
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

// takeOver returns rows that are overdue and were not before. A row that cannot be read is
// in the error, beside the others.
func (b *Outbox) takeOver(ctx context.Context) (taken []outboxRow, err error) {
	rows, err := b.pool.Query(ctx, takeoverSQL, relayRows, relayBytes)
	if err != nil {
		return nil, fmt.Errorf("take over overdue outputs: %w", err)
	}
	var unreadable error
	var id int64
	var text []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		events, err := readEvents(text)
		if err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("take over row %d of the outbox: %w", id, err))
			return nil
		}
		taken = append(taken, outboxRow{id: id, events: events})
		return nil
	}); err != nil {
		return nil, fmt.Errorf("take over overdue outputs: %w", err)
	}
	return taken, unreadable
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
