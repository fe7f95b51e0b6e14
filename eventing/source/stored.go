package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// storeBatch bounds the events that are stored in one transaction.
	storeBatch = 500

	// Of up to storedSubjects at a time whose dead letters have a verdict, the next
	// storedEach events are loaded, while fewer than storedInFlight are in flight.
	storedSubjects = 64
	storedEach     = 16
	storedInFlight = 1024

	// deleteInterval is the time between deletions of finished events, many at a time.
	deleteInterval = 20 * time.Millisecond
)

// storedEvents stores the events behind a dead letter of their subject, so that the stream
// need not wait for the verdict, and delivers them in order after the verdict. An event is
// acknowledged to its stream after it was stored, and deleted after it was committed or
// became a dead letter.
type storedEvents struct {
	source    *Source
	blocked   Blocked
	partition *inflight.Partition
	storing   *failurelog.Log
	loading   *failurelog.Log
	deleting  *failurelog.Log

	deleted chan struct{} // holds a token after events were deleted
	mu      sync.Mutex
	settled []int64 // positions to delete
	full    bool    // and logged
}

func newStoredEvents(s *Source) *storedEvents {
	e := &storedEvents{
		source:    s,
		blocked:   s.cfg.Blocked,
		partition: s.table.StoredPartition(),
		deleted:   make(chan struct{}, 1),
		storing:   failurelog.New(s.cfg.Logger, s.cfg.Now, "storing events behind a dead letter; they wait in the stream"),
		loading:   failurelog.New(s.cfg.Logger, s.cfg.Now, "loading events that waited for a verdict; they stay stored"),
		deleting:  failurelog.New(s.cfg.Logger, s.cfg.Now, "deleting events that waited for a verdict; they are deleted later"),
	}
	e.partition.Owner = e
	return e
}

// reportStored records how many events are stored, and logs when the limit is reached.
func (s *Source) reportStored(ctx context.Context) {
	n, full := s.table.CountStored()
	s.cfg.Metrics.storedNow(ctx, n)
	s.stored.mu.Lock()
	defer s.stored.mu.Unlock()
	if full && !s.stored.full {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the limit of events stored behind dead letters is reached; later events of blocked subjects wait in the stream: replay or drop dead letters (tandem dead-letters list)",
			slog.Int("stored", n))
	}
	s.stored.full = full
}

// storeAll stores entries that wait behind a dead letter, until ctx ends.
func (e *storedEvents) storeAll(ctx context.Context) {
	wait := backoff.Backoff{Base: retryBase, Limit: retryLimit}
	for {
		select {
		case <-e.source.table.StoreReady():
		case <-ctx.Done():
			return
		}
		for entries := e.source.table.NextToStore(storeBatch); len(entries) > 0; entries = e.source.table.NextToStore(storeBatch) {
			if err := e.store(ctx, entries); err != nil {
				e.storing.Failed(ctx, err)
				backoff.Sleep(ctx, &wait)
				continue
			}
			e.storing.Succeeded(ctx)
			wait.Reset()
		}
	}
}

// store stores entries and acknowledges them. An entry that cannot be encoded or fetched
// waits in the stream, with later ones of its subject. An entry whose message the stream has
// deleted ends.
func (e *storedEvents) store(ctx context.Context, entries []*inflight.Entry) error {
	var errs []error
	var storable, waiting []*inflight.Entry
	var events []ledger.StoredEvent
	var sizes []int
	waits := map[string]bool{}
	for _, entry := range entries {
		if !waits[entry.Subject] {
			stored, err := e.encode(ctx, entry)
			if err == nil {
				storable, events, sizes = append(storable, entry), append(events, stored), append(sizes, len(stored.Event))
				continue
			}
			if errors.Is(err, eventing.ErrGone) {
				e.source.gone(ctx, entry)
				e.finish(ctx, []*inflight.Entry{entry}, []bool{false}, []int{0})
				continue
			}
			waits[entry.Subject] = true
			errs = append(errs, err)
		}
		waiting = append(waiting, entry)
	}
	e.source.table.Stored(waiting, nil, nil)
	if len(storable) == 0 {
		return errors.Join(errs...)
	}
	errs = append(errs, e.save(ctx, storable, events, sizes))
	return errors.Join(errs...)
}

// save stores the rows of entries and acknowledges the entries. If the rows of several subjects
// cannot be stored, those of each subject are stored separately, because one of them may be the
// cause.
func (e *storedEvents) save(ctx context.Context, entries []*inflight.Entry, events []ledger.StoredEvent, sizes []int) error {
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	now, err := e.blocked.Store(saving, e.source.cfg.Function, events)
	if err != nil {
		now = nil
		other := slices.IndexFunc(events, func(s ledger.StoredEvent) bool { return s.Subject != events[0].Subject })
		if other > 0 && saving.Err() == nil { // the entries of a subject are adjacent
			return errors.Join(
				e.save(ctx, entries[:other], events[:other], sizes[:other]),
				e.save(ctx, entries[other:], events[other:], sizes[other:]))
		}
	}
	e.finish(ctx, entries, now, sizes)
	return err
}

// finish reports to the table which entries were stored now, and acknowledges those that are.
func (e *storedEvents) finish(ctx context.Context, entries []*inflight.Entry, now []bool, sizes []int) {
	for _, entry := range e.source.table.Stored(entries, now, sizes) {
		e.source.acknowledge(ctx, entry)
	}
}

// encode returns the row of an entry.
func (e *storedEvents) encode(ctx context.Context, entry *inflight.Entry) (ledger.StoredEvent, error) {
	stored := ledger.StoredEvent{
		Subject: entry.Subject, Source: entry.ID.Source, ID: entry.ID.ID,
		Stream: ownerOf(entry).name(), Sequence: entry.Sequence(), Arrived: entry.Message.Arrived(),
	}
	ev := entry.Delivery.Event
	if entry.Evicted {
		message, err := ownerOf(entry).fetch(ctx, entry.Message)
		if err != nil {
			return stored, err
		}
		ev = message.Event()
	}
	var err error
	stored.Event, err = cloudevent.AppendJSON(nil, ev)
	return stored, err
}

// deliverAll delivers stored events after a verdict on their dead letter, until ctx
// ends.
func (e *storedEvents) deliverAll(ctx context.Context) {
	wait := backoff.Backoff{Base: retryBase, Limit: retryLimit}
	for {
		select {
		case <-e.source.table.ToDeliver():
		case <-e.deleted:
		case <-ctx.Done():
			return
		}
		for {
			more, err := e.load(ctx)
			if err == nil {
				e.loading.Succeeded(ctx)
				wait.Reset()
				if more {
					continue
				}
				break
			}
			e.loading.Failed(ctx, err)
			if !backoff.Sleep(ctx, &wait) {
				return
			}
		}
	}
}

// load loads the next events of subjects that are no longer blocked, and reports
// whether there were any.
func (e *storedEvents) load(ctx context.Context) (more bool, err error) {
	if _, inFlight := e.partition.Has(0); inFlight >= storedInFlight {
		return false, nil // the table notifies when one of their subjects is finished
	}
	unblocked := e.source.table.Unblocked(storedSubjects)
	if len(unblocked) == 0 {
		return false, nil
	}
	subjects := make([]string, 0, len(unblocked))
	for subject := range unblocked {
		subjects = append(subjects, subject)
	}
	asking, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	events, err := e.blocked.Load(asking, e.source.cfg.Function, subjects, storedEach)
	if err != nil {
		return false, err
	}
	for _, stored := range events {
		if _, ok := unblocked[stored.Subject]; !ok {
			continue
		}
		m, err := e.message(stored)
		if err != nil {
			return false, err
		}
		d := &delivery.Delivery{Event: m.event}
		if e.partition.Receive(m, d, inflight.EventID{Source: stored.Source, ID: stored.ID}, stored.Subject) == inflight.Added {
			more = true // a duplicate is finished, and will be deleted
		}
	}
	for _, stored := range events {
		delete(unblocked, stored.Subject)
	}
	for subject, n := range unblocked {
		e.source.table.NoneStored(subject, n)
	}
	return more, nil
}

// message returns a stored event as a message.
func (e *storedEvents) message(stored ledger.StoredEvent) (*storedMessage, error) {
	ev, err := cloudevent.ReadJSON(stored.Event, cloudevent.Rules{})
	if err != nil {
		return nil, fmt.Errorf("read stored event %s of %s: %w", stored.ID, stored.Source, err)
	}
	return &storedMessage{events: e, position: stored.Position, stream: stored.Stream, sequence: stored.Sequence, arrived: stored.Arrived, size: len(stored.Event), event: ev}, nil
}

// deleteSettled deletes finished events until ctx ends, and then the rest.
func (e *storedEvents) deleteSettled(ctx context.Context) {
	ticker := time.NewTicker(deleteInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.deleteOnce(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
			defer cancel()
			e.deleteOnce(ctx)
			return
		}
	}
}

// deleteOnce deletes finished events. If that fails, they are deleted later; a source
// that starts before then delivers them again, and finds them in the ledger.
func (e *storedEvents) deleteOnce(ctx context.Context) {
	e.mu.Lock()
	settled := e.settled
	e.settled = nil
	e.mu.Unlock()
	if len(settled) == 0 {
		return
	}
	deleting, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := e.blocked.Delete(deleting, e.source.cfg.Function, settled)
	if err != nil {
		e.deleting.Failed(ctx, err)
		e.mu.Lock()
		e.settled = append(settled, e.settled...)
		e.mu.Unlock()
		return
	}
	e.deleting.Succeeded(ctx)
	select {
	case e.deleted <- struct{}{}:
	default:
	}
}

func (e *storedEvents) name() string { return "stored" }

// Failed attempts of stored events are counted in this process.
func (e *storedEvents) recordFailure(*inflight.Entry)  {}
func (e *storedEvents) forgetAttempts(*inflight.Entry) {}

// vanished is never called: the database deletes no events.
func (e *storedEvents) vanished(context.Context, uint64, uint64) {}

// fetch is never called: few stored events are in flight, so no payload is evicted.
func (e *storedEvents) fetch(_ context.Context, m eventing.Message) (eventing.Message, error) {
	return m, nil
}

// origin returns the position from which an entry was read before it was stored.
func (e *storedEvents) origin(entry *inflight.Entry) origin {
	m, _ := entry.Message.(*storedMessage)
	return origin{stream: m.stream, sequence: m.sequence}
}

func (e *storedEvents) fetchFailed(context.Context, error) {}

// storedMessage is a stored event.
type storedMessage struct {
	events   *storedEvents
	position int64
	stream   string // from which the event was read
	sequence uint64
	arrived  time.Time
	size     int
	event    event.Event
}

var _ eventing.Message = (*storedMessage)(nil)

// Sequence implements [eventing.Message].
func (m *storedMessage) Sequence() uint64 { return uint64(m.position) }

// Arrived implements [eventing.Message].
func (m *storedMessage) Arrived() time.Time { return m.arrived }

// Pending implements [eventing.Message]. A stored event is part of no backlog.
func (m *storedMessage) Pending() uint64 { return 0 }

// Size implements [eventing.Message].
func (m *storedMessage) Size() int { return m.size }

// Event implements [eventing.Message].
func (m *storedMessage) Event() event.Event { return m.event }

// InProgress implements [eventing.Message].
func (m *storedMessage) InProgress() error { return nil }

// Nak implements [eventing.Message]. The event stays stored.
func (m *storedMessage) Nak() error { return nil }

// WithoutPayload implements [eventing.Message].
func (m *storedMessage) WithoutPayload() eventing.Message {
	without := *m
	without.event = event.Event{}
	return &without
}

// Ack implements [eventing.Message]: the event is deleted soon.
func (m *storedMessage) Ack() error {
	m.events.mu.Lock()
	defer m.events.mu.Unlock()
	m.events.settled = append(m.events.settled, m.position)
	return nil
}
