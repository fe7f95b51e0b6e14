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

	// deleteInterval is how often settled events are deleted, many at a time.
	deleteInterval = 20 * time.Millisecond
)

// storedEvents stores the events behind a dead letter of their subject, so that the stream
// need not wait for the verdict on it, and delivers them in order when there is one. An
// event is acknowledged to its stream after it was stored, and deleted after it was
// settled.
type storedEvents struct {
	source    *Source
	blocked   Blocked
	partition *inflight.Partition
	storing   *failurelog.Log
	loading   *failurelog.Log
	deleting  *failurelog.Log

	deleted chan struct{} // holds a token after events were deleted
	mu      sync.Mutex
	settled []int64 // positions that are to be deleted
	full    bool    // was logged
}

func newStoredEvents(s *Source) *storedEvents {
	e := &storedEvents{
		source:    s,
		blocked:   s.cfg.Blocked,
		partition: s.table.StoredPartition(),
		deleted:   make(chan struct{}, 1),
		storing:   failurelog.New(s.cfg.Logger, s.cfg.Now, "storing events behind a dead letter; they wait in the stream"),
		loading:   failurelog.New(s.cfg.Logger, s.cfg.Now, "loading events that waited for a verdict"),
		deleting:  failurelog.New(s.cfg.Logger, s.cfg.Now, "deleting events that waited for a verdict"),
	}
	e.partition.Owner = e
	return e
}

// reportStored notes how many events are stored, and logs when no more may be.
func (s *Source) reportStored(ctx context.Context) {
	n, full := s.table.CountStored()
	s.cfg.Metrics.storedNow(ctx, n)
	s.stored.mu.Lock()
	defer s.stored.mu.Unlock()
	if full && !s.stored.full {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "no more events are stored behind dead letters; the stream waits for a verdict: replay or drop dead letters",
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
// waits in the stream, with later ones of its subject; one that the stream has deleted ends.
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
				e.source.table.Stored([]*inflight.Entry{entry}, []bool{false}, []int{0})
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

// save saves the rows of entries and acknowledges these. If the rows of several subjects cannot
// be saved, those of each are tried by themselves: one of them may be at fault.
func (e *storedEvents) save(ctx context.Context, entries []*inflight.Entry, events []ledger.StoredEvent, sizes []int) error {
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	now, err := e.blocked.Store(saving, e.source.cfg.Function, events)
	if err != nil {
		now = nil
		other := slices.IndexFunc(events, func(s ledger.StoredEvent) bool { return s.Subject != events[0].Subject })
		if other > 0 && saving.Err() == nil { // the entries of a subject follow each other
			return errors.Join(
				e.save(ctx, entries[:other], events[:other], sizes[:other]),
				e.save(ctx, entries[other:], events[other:], sizes[other:]))
		}
	}
	for _, entry := range e.source.table.Stored(entries, now, sizes) {
		e.source.acknowledge(ctx, entry)
	}
	return err
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

// deliverAll has stored events delivered when there is a verdict on what blocked them,
// until ctx ends.
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

// load loads the next events of subjects that are not blocked any more, and reports
// whether there were any.
func (e *storedEvents) load(ctx context.Context) (more bool, err error) {
	if _, inFlight := e.partition.Has(0); inFlight >= storedInFlight {
		return false, nil // the table notifies when a subject of them is through
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
			more = true // a copy is settled, and will be deleted
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

// deleteSettled deletes settled events, until ctx ends, and then the rest.
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

// deleteOnce deletes settled events. If that fails, they are deleted later; a source
// that starts before delivers it again, and the ledger knows it.
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

// Attempts of stored events are counted by this process.
func (e *storedEvents) recordFailure(*inflight.Entry)  {}
func (e *storedEvents) forgetAttempts(*inflight.Entry) {}

// vanished is never called: the database deletes none.
func (e *storedEvents) vanished(context.Context, uint64, uint64) {}

// fetch is never called: no payload of a stored event is evicted, as few are in flight.
func (e *storedEvents) fetch(_ context.Context, m eventing.Message) (eventing.Message, error) {
	return m, nil
}

// origin returns where an entry was read, before it was stored.
func (e *storedEvents) origin(entry *inflight.Entry) origin {
	m, _ := entry.Message.(*storedMessage)
	return origin{stream: m.stream, sequence: m.sequence}
}

func (e *storedEvents) fetchFailed(context.Context, error) {}

// storedMessage is a stored event.
type storedMessage struct {
	events   *storedEvents
	position int64
	stream   string // where it was read
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

// Pending implements [eventing.Message]. It is part of no backlog.
func (m *storedMessage) Pending() uint64 { return 0 }

// Size implements [eventing.Message].
func (m *storedMessage) Size() int { return m.size }

// Event implements [eventing.Message].
func (m *storedMessage) Event() event.Event { return m.event }

// InProgress implements [eventing.Message].
func (m *storedMessage) InProgress() error { return nil }

// Nak implements [eventing.Message]. It stays stored.
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
