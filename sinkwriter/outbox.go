package sinkwriter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-retry"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	// maxUnpublished bounds the events that a winner keeps in memory to publish
	// them itself. What exceeds it is in the outbox table, for the relay.
	maxUnpublished = 100_000

	// idleDelete is how long published rows wait for the next batch to delete
	// them in passing.
	idleDelete = 50 * time.Millisecond

	takeoverSQL = `update tandem.outbox set due = pg_catalog.clock_timestamp() + interval '30 seconds'
where id in (select id from tandem.outbox where due < pg_catalog.clock_timestamp() order by due limit $1 for update skip locked)
returning id, events`

	// What is stored, without fetching it: long values are measured by what
	// points to them.
	backlogBytesSQL = `select coalesce(sum(pg_catalog.pg_column_size(events)), 0)::bigint from tandem.outbox`

	// backlogCheck is how often a writer measures the backlog.
	backlogCheck = time.Second

	backlogSQL = `select coalesce(sum(pg_catalog.json_array_length(events::json)), 0) from tandem.outbox`
)

// outbox publishes what this writer committed and remembers which rows may go.
type outbox struct {
	writer *Writer
	wake   chan struct{}
	closed chan struct{} // no more rows will come
	ended  chan struct{}

	mu        sync.Mutex
	waiting   []committed
	events    int
	published []int64
	closeOnce sync.Once

	measured atomic.Int64 // the backlog in bytes, when it was measured last
	recent   atomic.Bool  // whether that is not long ago
}

// committed is one row of the outbox table.
type committed struct {
	row    int64
	events []event.Event
}

// newRow gives the id of a row of the outbox: 62 random bits, above all that the
// column's own sequence will ever give. A sequence would do, but for a failover to
// a standby that lags: it gives numbers again, and who deletes what it has published
// would hit a row of somebody else that nobody has.
func newRow() int64 { return int64(rand.Uint64()&(1<<62-1) | 1<<62) }

func newOutbox(w *Writer) *outbox {
	b := &outbox{writer: w, wake: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{})}
	if w.config.Publisher == nil {
		close(b.ended)
		return b
	}
	go b.run()
	return b
}

// full reports whether the backlog is over its limit, by a recent measurement.
// Without one, whoever asks goes on, and measures in passing.
func (b *outbox) full() bool {
	return b.recent.Load() && b.measured.Load() > b.writer.config.BacklogBytes
}

// measure gives a statement that measures the backlog, if it is time.
func (b *outbox) measure() []step {
	if !b.recent.CompareAndSwap(false, true) {
		return nil
	}
	time.AfterFunc(backlogCheck, func() { b.recent.Store(false) })
	return []step{{sql: backlogBytesSQL, table: "tandem.outbox", row: func(v [][]byte) {
		b.measured.Store(int64(binary.BigEndian.Uint64(v[0])))
	}}}
}

// committed takes over a row that has just been committed.
func (b *outbox) committed(row int64, events []event.Event) {
	if b.writer.config.Publisher == nil {
		return
	}
	b.mu.Lock()
	if b.events+len(events) <= maxUnpublished {
		b.waiting = append(b.waiting, committed{row: row, events: events})
		b.events += len(events)
	}
	b.mu.Unlock()
	b.signal()
}

func (b *outbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// takePublished gives the rows to delete in the next transaction.
func (b *outbox) takePublished() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := b.published
	b.published = nil
	return rows
}

func (b *outbox) putBack(rows []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published = append(b.published, rows...)
}

func (b *outbox) take() []committed {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := b.waiting
	b.waiting, b.events = nil, 0
	return rows
}

// run publishes what was committed, all that waits at a time, and deletes the
// rows of what is published when no batch has done so in passing.
func (b *outbox) run() {
	defer close(b.ended)
	idle := time.NewTimer(idleDelete)
	defer idle.Stop()
	for {
		select {
		case <-b.wake:
			b.publish()
			idle.Reset(idleDelete)
		case <-idle.C:
			b.deletePublished()
		case <-b.closed:
			b.publish()
			b.deletePublished()
			return
		}
	}
}

func (b *outbox) publish() {
	rows := b.take()
	if len(rows) == 0 {
		return
	}
	events := rows[0].events
	ids := []int64{rows[0].row}
	for _, r := range rows[1:] {
		events = append(events, r.events...)
		ids = append(ids, r.row)
	}
	config := b.writer.config
	ctx, cancel := context.WithTimeout(b.writer.ctx, config.PublishTimeout)
	defer cancel()
	backoff := retry.WithCappedDuration(time.Second, retry.WithJitterPercent(20, retry.NewExponential(50*time.Millisecond)))
	err := retry.Do(ctx, backoff, func(ctx context.Context) error {
		return retry.RetryableError(config.Publisher.Publish(ctx, events))
	})
	if err != nil {
		config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not publish outputs; the relay will",
			slog.Int("events", len(events)), slog.Any("err", err))
		return
	}
	b.writer.stats.published.Add(int64(len(events)))
	b.putBack(ids)
}

func (b *outbox) deletePublished() {
	rows := b.takePublished()
	if len(rows) == 0 {
		return
	}
	config := b.writer.config
	ctx, cancel := context.WithTimeout(b.writer.ctx, config.CommitTimeout)
	defer cancel()
	s, err := acquire(ctx, b.writer.pool, config.ClaimTimeout, config.CommitTimeout)
	if err == nil {
		err = s.run(ctx, []step{deleteStep(rows)})
		s.release()
	}
	if err != nil {
		// The relay publishes them again, with the same identity, and deletes.
		config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not delete published outputs from the outbox",
			slog.Int("rows", len(rows)), slog.Any("err", err))
	}
}

func (b *outbox) close(ctx context.Context) error {
	b.closeOnce.Do(func() { close(b.closed) })
	select {
	case <-b.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close sinkwriter: outputs are left to the relay: %w", ctx.Err())
	}
}

// Outbox is the relay's view of the outputs that are committed and not yet
// known to be published. It may be shared.
type Outbox struct {
	pool *pgxpool.Pool
}

// NewOutbox gives the outbox of the database behind pool.
func NewOutbox(pool *pgxpool.Pool) *Outbox { return &Outbox{pool: pool} }

// relayRows bounds what one pass of the relay takes over.
const relayRows = 64

// Relay takes over rows that are overdue, since whoever won them did not come
// back, publishes their events outside any transaction, and deletes them. It
// gives the number of events that were published; zero without an error says that
// nothing was overdue. What publish fails for is due again after 30 s, and holds up
// no other row, as long as ctx lasts. Several relays may run at once.
func (b *Outbox) Relay(ctx context.Context, publish func(context.Context, []event.Event) error) (int, error) {
	rows, err := b.takeOver(ctx)
	if err != nil && len(rows) == 0 {
		return 0, err
	}
	done, failed := publishRows(ctx, rows, publish)
	if len(done) > 0 {
		ids, n := []int64{}, 0
		for _, r := range done {
			ids = append(ids, r.row)
			n += len(r.events)
		}
		if _, err := b.pool.Exec(ctx, outboxDeleteSQL, ids); err != nil {
			return 0, fmt.Errorf("delete %d published rows of the outbox: %w", len(ids), err)
		}
		return n, errors.Join(err, failed)
	}
	return 0, errors.Join(err, failed)
}

// takeOver gives rows that are overdue and were not before. A row that cannot be
// read is in the error, beside the others.
func (b *Outbox) takeOver(ctx context.Context) (taken []committed, err error) {
	rows, err := b.pool.Query(ctx, takeoverSQL, relayRows)
	if err != nil {
		return nil, fmt.Errorf("take over overdue outputs: %w", err)
	}
	var unreadable error
	var id int64
	var text []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &text}, func() error {
		events, err := readRow(text)
		if err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("take over row %d of the outbox: %w", id, err))
			return nil
		}
		taken = append(taken, committed{row: id, events: events})
		return nil
	}); err != nil {
		return nil, fmt.Errorf("take over overdue outputs: %w", err)
	}
	return taken, unreadable
}

func readRow(text []byte) ([]event.Event, error) {
	batch, err := cloudevent.ReadBatch(text, cloudevent.Rules{})
	if err != nil {
		return nil, err
	}
	events := make([]event.Event, len(batch))
	for i, m := range batch {
		if m.Err != nil {
			return nil, fmt.Errorf("event %d: %w", i, m.Err)
		}
		events[i] = m.Event
	}
	return events, nil
}

// publishRows publishes all rows together, and if that fails each alone: one event
// that nobody ever takes must not hold up the others.
func publishRows(ctx context.Context, rows []committed, publish func(context.Context, []event.Event) error) (done []committed, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var all []event.Event
	for _, r := range rows {
		all = append(all, r.events...)
	}
	err = publish(ctx, all)
	switch {
	case err == nil:
		return rows, nil
	case len(rows) == 1 || ctx.Err() != nil:
		return nil, fmt.Errorf("publish %d overdue outputs: %w", len(all), err)
	}
	var errs []error
	for _, r := range rows {
		if err := publish(ctx, r.events); err != nil {
			errs = append(errs, fmt.Errorf("publish %d overdue outputs of row %d of the outbox: %w", len(r.events), r.row, err))
			continue
		}
		done = append(done, r)
	}
	return done, errors.Join(errs...)
}

// Bytes gives the size of the outputs in the outbox, as stored: what
// [Config].BacklogBytes bounds. It takes less than to count them.
func (b *Outbox) Bytes(ctx context.Context) (int64, error) {
	var n int64
	if err := b.pool.QueryRow(ctx, backlogBytesSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("measure the outbox: %w", err)
	}
	return n, nil
}

// Backlog counts the events in the outbox.
func (b *Outbox) Backlog(ctx context.Context) (int64, error) {
	var n int64
	if err := b.pool.QueryRow(ctx, backlogSQL).Scan(&n); err != nil {
		return 0, fmt.Errorf("count outputs in the outbox: %w", err)
	}
	return n, nil
}
