package sinkwriter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/sinkwriter/contract"
	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
)

const (
	// maxHeldBytes bounds the encoded outputs that a winner keeps in memory to publish them
	// itself. Outputs above the bound are only in the outbox table. They are read back in
	// their turn, up to maxReadBytes and maxReadRows at a time.
	maxHeldBytes = 32 << 20
	maxReadBytes = 8 << 20
	maxReadRows  = 256

	// heldEvent is the approximate memory of an event in addition to its encoded
	// form.
	heldEvent = 512

	// idleDelete is how long published rows wait for a batch that deletes them in its
	// transaction.
	idleDelete = 50 * time.Millisecond

	// deleteAgain is the delay before the next attempt to delete them after a
	// failure.
	deleteAgain = time.Second

	// maxCalls bounds the concurrent calls of the publisher for outputs that were not tried
	// yet. A call that takes longer than callPatience does not delay the next one. A call that
	// takes longer than stuckAfter does not count towards maxCalls, up to maxStuckCalls: the
	// publisher waits for an answer about some of its outputs.
	maxCalls      = 4
	callPatience  = 100 * time.Millisecond
	stuckAfter    = time.Second
	maxStuckCalls = 12

	// A call has from minCall to maxCall events. Its size is adjusted so that it takes
	// between quickCall and slowCall.
	minCall, maxCall    = 64, 8192
	quickCall, slowCall = time.Second, 5 * time.Second

	// renewAfter is the age at which a winner that is still publishing a row extends the
	// time for which relays ignore it, and the interval of further extensions.
	renewAfter = 5 * time.Second

	// backlogCheck is the interval at which a writer measures the backlog. Measuring
	// it row by row is limited to measureLimit, and is followed by a pause of
	// measureRest times its duration.
	backlogCheck = time.Second
	measureLimit = 20 * time.Second
	measureRest  = 5
)

// outbox publishes the outputs that this writer committed, and remembers which rows can
// be deleted.
//
// A row is held from its commit until all its events are published or rejected, or until
// it is left to a relay. Its events are fresh until the first attempt, then failing. The
// progress of a row is saved when the row ends, and every few seconds. A row that exceeds
// the memory bound is held without its events.
type outbox struct {
	writer *Writer
	ctx    context.Context //nolint:containedctx // of the publishing, which no caller waits for
	cancel context.CancelFunc
	wake   chan struct{} // there are events to publish
	save   chan struct{} // there is progress to save
	closed chan struct{} // no more rows will be added
	ended  chan struct{}
	under  sync.WaitGroup // running calls of the publisher

	mu        sync.Mutex
	held      map[int64]*heldRow
	bytes     int        // memory of held
	unread    int        // number of rows in held without their events
	fresh     []*heldRow // in commit order
	failing   []*heldRow
	calls     []time.Time // when the running calls for fresh rows began
	retrying  bool        // a call for failing rows is running
	started   time.Time   // the start of the latest call for fresh rows
	size      int         // number of events in a call
	pause     time.Time   // no call for fresh rows before this time
	pauses    int         // consecutive calls for fresh rows that stored nothing
	published []int64     // rows to delete
	deleting  bool        // rows are being deleted outside of a batch
	deleteAt  time.Time   // when they are deleted, unless a batch has deleted them before
	latest    error       // the last reason why events were not published
	closeOnce sync.Once

	measured  atomic.Int64 // the size of the backlog in bytes at the last measurement
	recent    atomic.Bool  // whether that measurement is recent
	measuring atomic.Bool  // row by row
}

// heldRow is a row that this writer publishes.
type heldRow struct {
	id       int64
	events   []event.Event    // neither stored nor rejected, as far as known
	unread   int              // number of events that are only in the table; then events is empty
	reading  bool             // a call is reading them, and they count as memory
	rejected []rejectedOutput // not saved yet
	bytes    int
	renewed  time.Time // its due time is 30 s later
	changed  bool      // the table has more events than the row
	attempts int       // failed ones
	failed   time.Time // the time of the first failed attempt
	next     time.Time // the time of the next attempt
	left     bool      // it is left to the relay
}

func newOutbox(w *Writer) *outbox {
	b := &outbox{
		writer: w, wake: make(chan struct{}, 1), save: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{}),
		held: map[int64]*heldRow{}, size: 512,
	}
	b.ctx, b.cancel = context.WithCancel(w.ctx)
	if w.config.Publisher == nil {
		close(b.ended)
		return b
	}
	go b.run()
	return b
}

// full reports whether a recent measurement of the backlog exceeds the limit. Without
// a recent one it returns false, and the offer's batch measures.
func (b *outbox) full() bool {
	return (b.recent.Load() || b.measuring.Load()) && b.measured.Load() > b.writer.config.BacklogBytes
}

// measure returns a statement that measures the outbox, if it is time. It measures the table's
// files, which takes the same time however many rows there are. The files may consist mostly
// of deleted rows, so if they exceed the limit, the rows are measured outside of the batches.
func (b *outbox) measure() []step {
	if !b.recent.CompareAndSwap(false, true) {
		return nil
	}
	time.AfterFunc(backlogCheck, func() { b.recent.Store(false) })
	return []step{{sql: outboxFilesSQL, table: "tandem.outbox", row: func(v [][]byte) {
		if int64(binary.BigEndian.Uint64(v[0])) <= b.writer.config.BacklogBytes {
			b.measured.Store(0)
		} else if b.measuring.CompareAndSwap(false, true) {
			go b.measureRows()
		}
	}}}
}

// measureRows measures the rows of the outbox. That takes long if there are many, or if many
// deleted rows are kept for a long snapshot. So the pause before the next measurement is a
// multiple of its duration.
func (b *outbox) measureRows() {
	begin := now()
	ctx, cancel := context.WithTimeout(b.ctx, measureLimit)
	defer cancel()
	bytes, err := NewOutbox(b.writer.pool).Bytes(ctx)
	if err == nil {
		b.measured.Store(bytes)
	} else if b.ctx.Err() == nil {
		b.writer.config.Logger.LogAttrs(b.ctx, slog.LevelWarn, "could not measure the outbox; outputs are accepted or refused according to the last measurement: see err", slog.Any("err", err))
	}
	pause := time.NewTimer(measureRest * now().Sub(begin))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-b.ctx.Done():
	}
	b.measuring.Store(false)
}

// now returns the local time; no effects are computed from it.
func now() time.Time { return time.Now() } //nolint:forbidigo // leases and pauses only

// committed adds rows that were committed in a transaction that began after begin.
func (b *outbox) committed(rows []outboxRow, begin time.Time) {
	if b.writer.config.Publisher == nil {
		return
	}
	b.mu.Lock()
	for _, r := range rows {
		h := &heldRow{id: r.id, bytes: len(r.text) + heldEvent*len(r.events), renewed: begin}
		// Behind an unread row the next ones are unread, too, as they would take the memory that
		// it waits for.
		if b.unread > 0 || b.bytes > 0 && b.bytes+h.bytes > maxHeldBytes {
			h.unread = len(r.events)
			b.unread++
		} else {
			h.events = r.events
			b.bytes += h.bytes
		}
		b.held[r.id] = h
		b.fresh = append(b.fresh, h)
	}
	b.mu.Unlock()
	signal(b.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// takePublished returns the rows to delete in the next transaction.
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
	b.deleteAt = now().Add(idleDelete)
}

// run starts the calls of the publisher until the writer is closed, no row is held, and
// all published rows are deleted.
func (b *outbox) run() {
	saved := make(chan struct{})
	go func() {
		defer close(saved)
		b.saveAll()
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-b.wake:
		case <-timer.C:
		case <-b.closedAndIdle():
			b.cancel()
			<-saved
			b.under.Wait() // they end soon, and may have stored events
			b.saveOnce(context.WithoutCancel(b.ctx), true)
			close(b.ended)
			return
		}
		timer.Reset(b.startCalls(now()))
	}
}

// closedAndIdle returns a channel that is closed when the writer is closed and no row
// is held or waits to be deleted, or when it has to end.
func (b *outbox) closedAndIdle() <-chan struct{} {
	select {
	case <-b.closed:
	default:
		return b.ctx.Done()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.held) == 0 && len(b.calls) == 0 && !b.retrying && len(b.published) == 0 && !b.deleting {
		return b.closed
	}
	return b.ctx.Done()
}

// startCalls starts the calls that may start now, and returns the delay until it
// has to run again.
func (b *outbox) startCalls(at time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := at.Add(time.Second)
	stuck := 0
	for _, began := range b.calls {
		if at.Sub(began) >= stuckAfter {
			stuck++
		}
	}
	switch free := len(b.calls)-min(stuck, maxStuckCalls) < maxCalls; {
	case len(b.fresh) > 0 && !free:
		next = at.Add(callPatience) // a call may be stuck by then
	case len(b.fresh) > 0:
		earliest := b.pause
		if after := b.started.Add(callPatience); len(b.calls) > 0 && after.After(earliest) {
			earliest = after
		}
		if earliest.After(at) {
			next = earliest
		} else if rows, rest := b.some(b.fresh); len(rows) > 0 {
			b.fresh = rest
			b.calls = append(b.calls, at)
			b.started, next = at, at.Add(callPatience)
			b.under.Go(func() { b.call(rows, at, false) })
		}
	}
	if !b.retrying {
		var due, later []*heldRow
		for _, r := range b.failing {
			if r.next.After(at) {
				later = append(later, r)
				if r.next.Before(next) {
					next = r.next
				}
			} else {
				due = append(due, r)
			}
		}
		if len(due) > 0 {
			// Rows that always fail must not be the first ones every time.
			rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
			rows, rest := b.some(due)
			b.failing, b.retrying = append(later, rest...), true
			b.under.Go(func() { b.call(rows, at, true) })
		}
	}
	return max(next.Sub(at), time.Millisecond)
}

// some splits rows into those of the next call and the rest. For rows that the call has to
// read, some reserves memory. call is empty if there is no memory for the first row.
func (b *outbox) some(rows []*heldRow) (call, rest []*heldRow) {
	events, read, bytes := 0, 0, 0
	for i, r := range rows {
		if events += len(r.events) + r.unread; i > 0 && (events > b.size || (r.unread > 0) != (rows[0].unread > 0)) {
			return rows[:i:i], rows[i:]
		}
		if r.unread == 0 {
			continue
		}
		read, bytes = read+1, bytes+r.bytes
		if b.bytes > 0 && b.bytes+r.bytes > maxHeldBytes || i > 0 && (read > maxReadRows || bytes > maxReadBytes) {
			return rows[:i:i], rows[i:]
		}
		r.reading = true
		b.unread--
		b.bytes += r.bytes
	}
	return rows, nil
}

// call publishes the events of rows and records their outcomes.
func (b *outbox) call(rows []*heldRow, began time.Time, retry bool) {
	config := b.writer.config
	ctx, cancel := context.WithTimeout(b.ctx, config.PublishTimeout)
	defer cancel()
	err := b.read(ctx, rows)
	if err != nil && b.ctx.Err() == nil {
		config.Logger.LogAttrs(b.ctx, slog.LevelWarn, "could not read outputs back from the outbox; retrying: see err", slog.Int("rows", len(rows)), slog.Any("err", err))
	}
	total := 0
	for _, r := range rows {
		total += len(r.events)
	}
	events := make([]event.Event, 0, total)
	for _, r := range rows {
		events = append(events, r.events...)
	}
	if err == nil && total > 0 {
		err = config.Publisher.Publish(ctx, events)
	}
	b.called(rows, contract.ReasonsOf(err, len(events)), began, now(), retry)
	signal(b.wake)
}

// read reads the events of unread rows. If a row is no longer in the table, a relay has
// published its events. A row that cannot be decoded is left to a relay, which reports it.
func (b *outbox) read(ctx context.Context, rows []*heldRow) error {
	var ids []int64
	for _, r := range rows {
		if r.reading {
			ids = append(ids, r.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	found, unreadable, err := readOutbox(ctx, b.writer.pool, ids)
	b.mu.Lock()
	defer b.mu.Unlock()
	events := map[int64][]event.Event{}
	for _, row := range found {
		events[row.id] = row.events
	}
	for _, r := range rows {
		if !r.reading {
			continue
		}
		r.reading = false
		if r.left = unreadable != nil && events[r.id] == nil; err == nil && !r.left {
			r.events, r.unread = events[r.id], 0
		} else if b.held[r.id] == r {
			b.unread++
			b.bytes -= r.bytes
		}
	}
	return err
}

// called records the outcome of a call.
func (b *outbox) called(rows []*heldRow, reasons []error, began, at time.Time, retry bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stored, rejected, total := 0, 0, len(reasons)
	for _, reason := range reasons {
		if reason == nil {
			stored++
		} else if errors.As(reason, new(*contract.Rejection)) {
			rejected++
		}
	}
	b.writer.stats.published.Add(int64(stored))
	b.writer.stats.rejected.Add(int64(rejected))
	moved := stored+rejected > 0
	var unread []*heldRow
	for _, r := range rows {
		if r.unread > 0 {
			if !r.left && b.held[r.id] == r {
				unread = append(unread, r)
			}
			continue
		}
		left, refused, other := divide(r.events, reasons[:len(r.events)])
		reasons = reasons[len(r.events):]
		r.changed = r.changed || len(left) < len(r.events)
		r.events, r.rejected = left, append(r.rejected, refused...)
		switch {
		case len(left) == 0 && len(r.rejected) == 0:
			b.release(r)
			b.published, b.deleteAt = append(b.published, r.id), at.Add(idleDelete)
		case len(left) == 0, b.held[r.id] != r: // its progress has to be saved, or it is left to a relay
		case moved && contextEnded(other): // the call did not reach this event
			b.fresh = append(b.fresh, r)
		default:
			b.latest = other
			b.failedAgain(r, at)
		}
	}
	b.fresh = slices.Insert(b.fresh, 0, unread...)
	switch {
	case retry:
		b.retrying = false
	default:
		i := slices.Index(b.calls, began)
		b.calls = slices.Delete(b.calls, i, i+1)
		b.pace(at, at.Sub(began), total, moved)
	}
	if rejected > 0 {
		b.writer.config.Logger.LogAttrs(b.ctx, slog.LevelWarn, "outputs were rejected for good and moved out of the outbox: see tandem rejected-outputs list", slog.Int("events", rejected))
	}
	signal(b.save)
}

// pace adjusts the size of calls, and pauses while calls store nothing.
func (b *outbox) pace(at time.Time, took time.Duration, events int, moved bool) {
	switch {
	case took > slowCall:
		b.size = max(b.size/2, minCall)
	case took < quickCall && events >= b.size/2:
		b.size = min(b.size*2, maxCall)
	}
	if moved {
		b.pauses = 0
		return
	}
	b.pause = at.Add(backoff(b.pauses))
	b.pauses++
}

// backoff returns the pause after a failed attempt that attempts others preceded.
func backoff(attempts int) time.Duration {
	pause := min(50*time.Millisecond<<min(attempts, 10), time.Second)
	return pause + rand.N(pause/4)
}

// failedAgain records that events of a row were not published.
func (b *outbox) failedAgain(r *heldRow, at time.Time) {
	if r.failed.IsZero() {
		r.failed = at
	}
	r.next = at.Add(backoff(r.attempts))
	r.attempts++
	if at.Sub(r.failed) >= b.writer.config.PublishTimeout || b.ctx.Err() != nil {
		r.left = true // its changes are saved before
		return
	}
	b.failing = append(b.failing, r)
}

// release removes a row from memory.
func (b *outbox) release(r *heldRow) {
	if b.held[r.id] == r {
		delete(b.held, r.id)
		if r.unread > 0 && !r.reading {
			b.unread--
		} else {
			b.bytes -= r.bytes
		}
	}
}

// close publishes the held outputs and deletes the published ones, for as long as ctx
// allows.
func (b *outbox) close(ctx context.Context) error {
	b.closeOnce.Do(func() {
		close(b.closed)
		b.mu.Lock()
		b.deleteAt = now() // there is no further batch
		b.mu.Unlock()
	})
	signal(b.wake)
	signal(b.save)
	select {
	case <-b.ended:
		return nil
	case <-ctx.Done():
	}
	b.cancel()
	select { // its progress has been saved
	case <-b.ended:
	case <-time.After(b.writer.config.CommitTimeout):
	}
	return fmt.Errorf("close sinkwriter: outputs are left to the relay: %w", ctx.Err())
}

// saveAll saves the progress of rows until the outbox ends.
func (b *outbox) saveAll() {
	ticks := time.NewTicker(idleDelete)
	defer ticks.Stop()
	for {
		select {
		case <-b.save:
		case <-ticks.C:
		case <-b.ctx.Done():
			return
		}
		b.saveOnce(b.ctx, false)
	}
}

// saveOnce saves rows that are done or left to a relay, and deletes published rows that
// no batch has deleted. At the end it saves every change.
func (b *outbox) saveOnce(ctx context.Context, end bool) {
	at := now()
	b.mu.Lock()
	var rows []*heldRow
	var renew []int64
	lease := contract.RelayTakeover - b.writer.config.CommitTimeout - renewAfter/2
	dropped := 0
	var back []int64
	for _, r := range b.held {
		switch {
		case at.Sub(r.renewed) > lease:
			dropped += len(r.events) + r.unread
			b.release(r) // a relay publishes it, now or later
		case r.left && !r.changed && len(r.rejected) == 0:
			dropped += len(r.events) + r.unread
			back = append(back, r.id)
			b.release(r)
		case r.left, len(r.rejected) > 0, r.changed && (end || at.Sub(r.renewed) > renewAfter):
			rows = append(rows, r)
		case at.Sub(r.renewed) > renewAfter:
			renew = append(renew, r.id)
		}
	}
	if dropped > 0 {
		gone := func(r *heldRow) bool { return b.held[r.id] != r }
		b.fresh, b.failing = slices.DeleteFunc(b.fresh, gone), slices.DeleteFunc(b.failing, gone)
	}
	idle, latest := end || !at.Before(b.deleteAt), b.latest
	b.mu.Unlock()
	if dropped > 0 {
		b.writer.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not publish outputs; the relay of a source publishes them later: see err", slog.Int("events", dropped), slog.Any("err", latest))
	}
	if idle {
		b.deletePublished(ctx)
	}
	if len(back) > 0 {
		b.setDue(ctx, outboxReturnSQL, back)
	}
	if len(renew) > 0 && b.setDue(ctx, outboxRenewSQL, renew) {
		b.mu.Lock()
		for _, id := range renew {
			if r := b.held[id]; r != nil {
				r.renewed = at
			}
		}
		b.mu.Unlock()
	}
	for _, r := range rows {
		if !b.saveRow(ctx, r, at) {
			return
		}
	}
}

// setDue changes the due time of rows, to keep them from relays or to leave them
// to relays.
func (b *outbox) setDue(ctx context.Context, sql string, ids []int64) bool {
	ctx, cancel := context.WithTimeout(ctx, b.writer.config.CommitTimeout)
	defer cancel()
	if _, err := b.writer.pool.Exec(ctx, sql, ids); err != nil {
		b.notSaved(ctx, len(ids), err)
		return false
	}
	return true
}

// saveRow saves the rejected outputs of a row and the events that are left.
func (b *outbox) saveRow(ctx context.Context, r *heldRow, at time.Time) bool {
	b.mu.Lock()
	left, rejected, leave := r.events, r.rejected, r.left
	r.changed = false
	b.mu.Unlock()
	statements, err := saveSteps(r.id, left, rejected, leave)
	if err == nil {
		batch := &pgx.Batch{}
		batch.Queue(mark.SQL)
		for _, s := range statements {
			batch.Queue(s.sql, s.arguments...)
		}
		ctx, cancel := context.WithTimeout(ctx, b.writer.config.CommitTimeout)
		err = b.writer.pool.SendBatch(ctx, batch).Close()
		cancel()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		r.changed = true
		b.notSaved(ctx, 1, err)
		return false
	}
	r.rejected = r.rejected[len(rejected):]
	r.renewed = at
	if len(r.rejected) == 0 && (len(r.events) == 0 || r.left) {
		b.release(r)
		if len(r.events) == 0 && len(left) > 0 { // they were published meanwhile
			b.published, b.deleteAt = append(b.published, r.id), at.Add(idleDelete)
		}
		signal(b.wake)
	}
	return true
}

// notSaved logs that rows could not be saved. A relay publishes them, possibly again,
// with the same source and id.
func (b *outbox) notSaved(ctx context.Context, rows int, err error) {
	b.writer.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not save the progress of publishing outputs; retrying, and some may be published twice: see err",
		slog.Int("rows", rows), slog.Any("err", err))
}

// deletePublished deletes published rows. Rows that it cannot delete, because the database
// is unavailable or all connections are in use, are deleted in the next batch or later.
func (b *outbox) deletePublished(ctx context.Context) {
	b.mu.Lock()
	rows := b.published
	b.published, b.deleting = nil, len(rows) > 0
	b.mu.Unlock()
	if len(rows) == 0 {
		return
	}
	config := b.writer.config
	deadline, cancel := context.WithTimeout(ctx, config.CommitTimeout)
	defer cancel()
	s, err := b.writer.acquire(deadline)
	if err == nil {
		stop := b.writer.watch(s, s.claimTimeout/2)
		if err = s.run(deadline, []step{{sql: beginSQL}, s.settings(), deleteStep(rows), {sql: commitSQL}}); err != nil {
			s.rollback()
		}
		stop()
		s.release()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deleting = false
	if err == nil {
		signal(b.wake) // close may wait for it
		return
	}
	b.published = append(b.published, rows...)
	b.deleteAt = now().Add(deleteAgain)
	// If this process ends before, a relay publishes them again, with the same source and
	// id, and deletes them.
	config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not delete published outputs from the outbox; retrying, and some may be published twice: see err",
		slog.Int("rows", len(rows)), slog.Any("err", err))
}
