package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// deferredInterval is the time between loads of deferred events that are due, and
	// deferredCount the time between counts if there are more than fewDeferred.
	deferredInterval = time.Second
	deferredCount    = 10 * time.Second
	fewDeferred      = 1000

	// One event of each fingerprint runs after an interval that grows from probeBase to
	// probeLimit, and after a change of the catalog, but at least probePause after the
	// previous one.
	probeBase  = 10 * time.Second
	probeLimit = 10 * time.Minute
	probePause = 2 * time.Second

	// Up to deferredEach events are loaded at a time, while fewer than deferredInFlight are in
	// flight.
	deferredEach     = 64
	deferredInFlight = 256
)

// runs is the state of deferrals for events that run again. The lock of deferrals guards
// it.
type runs struct {
	countedAt time.Time
	catalog   int64 // its latest version; 0 if unknown
	renewed   bool  // another version of the function has committed an event

	failed   map[string]int       // consecutive failed runs, by fingerprint
	probedAt map[string]time.Time // when an event of the fingerprint was scheduled last
	passes   map[string]int64     // positions of the fingerprints whose events run now

	settled []*deferredMessage // finished, to be deleted
	ended   map[int64]bool     // positions of events that are finished, and not deleted
}

func newRuns() runs {
	return runs{failed: map[string]int{}, probedAt: map[string]time.Time{}, passes: map[string]int64{}, ended: map[int64]bool{}}
}

// followDeferred counts, schedules and runs deferred events, until ctx ends.
func (d *deferrals) followDeferred(ctx context.Context) {
	ticker := time.NewTicker(deferredInterval)
	defer ticker.Stop()
	for {
		if d.source.active() {
			d.relieve()
			switch err := d.runDue(ctx); {
			case ctx.Err() != nil:
				return
			case err != nil:
				d.running.Failed(ctx, err)
			default:
				d.running.Succeeded(ctx)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// runDue runs the events that are due.
func (d *deferrals) runDue(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := d.count(ctx); err != nil {
		return err
	}
	if d.isEmpty() {
		return nil
	}
	if err := d.schedule(ctx); err != nil {
		return err
	}
	room := d.room()
	if room <= 0 {
		return nil
	}
	rows, err := d.store.Due(ctx, d.source.cfg.Function, room)
	if err != nil {
		return err
	}
	return errors.Join(d.run(rows), d.runPasses(ctx))
}

// room returns how many events may be loaded.
func (d *deferrals) room() int {
	_, inFlight := d.partition.Has(0)
	return min(deferredEach, deferredInFlight-inFlight)
}

func (d *deferrals) isEmpty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.events == 0
}

// count counts the deferred events of this cluster and of others, if it is time.
func (d *deferrals) count(ctx context.Context) error {
	now := d.source.cfg.Now()
	d.mu.Lock()
	due := d.countedAt.IsZero() || d.events <= fewDeferred || now.Sub(d.countedAt) >= deferredCount
	fails := len(d.since) > 0
	d.mu.Unlock()
	if !due {
		return nil
	}
	counts, err := d.store.Counts(ctx, d.source.cfg.Function)
	if err != nil {
		return err
	}
	var elsewhere []deferred.Lack
	if fails {
		if elsewhere, err = d.store.Elsewhere(ctx, d.source.cfg.Function); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.countedAt = now
	clear(d.counts)
	clear(d.elsewhere)
	d.events, d.bytes = 0, 0
	for _, c := range counts {
		d.counts[c.Fingerprint] = c
		d.events += c.Events
		d.bytes += c.Bytes
	}
	for _, lack := range elsewhere {
		d.elsewhere[lack] = true
	}
	gone := func(fingerprint string) bool { return d.counts[fingerprint].Events == 0 }
	maps.DeleteFunc(d.logged, func(fingerprint string, _ bool) bool { return gone(fingerprint) })
	maps.DeleteFunc(d.failed, func(fingerprint string, _ int) bool { return gone(fingerprint) })
	maps.DeleteFunc(d.probedAt, func(fingerprint string, _ time.Time) bool { return gone(fingerprint) })
	full := d.isFull()
	if full && !d.full {
		d.source.cfg.Logger.LogAttrs(ctx, slog.LevelError, "the limit of deferred events is reached; the source pauses: apply the missing migration or grant, or drop the events (tandem deferred list)",
			slog.Int64("events", d.events), slog.Int64("bytes", d.bytes))
	}
	if d.full = full; !full {
		select {
		case d.roomAgain <- struct{}{}:
		default:
		}
	}
	return nil
}

// schedule schedules one event of each fingerprint that has no scheduled event, and one of every
// fingerprint when the source starts, after a change of the catalog, and with a new version of
// the function.
func (d *deferrals) schedule(ctx context.Context) error {
	version, err := d.store.Catalog(ctx)
	if err != nil {
		return err
	}
	now := d.source.cfg.Now()
	d.mu.Lock()
	changed := version != d.catalog || d.renewed
	byWait := map[time.Duration][]deferred.Count{}
	paused := false
	for fingerprint, c := range d.counts {
		switch {
		case c.Events <= c.Held || c.Last == 0:
		case changed && now.Sub(d.probedAt[fingerprint]) < probePause:
			paused = true
		case changed:
			byWait[0] = append(byWait[0], c)
			d.probedAt[fingerprint] = now
		case !c.Scheduled:
			wait := min(probeBase<<min(d.failed[fingerprint], 10), probeLimit)
			byWait[wait] = append(byWait[wait], c)
		}
	}
	if !paused {
		d.catalog, d.renewed = version, false
	}
	d.mu.Unlock()
	for wait, counts := range byWait {
		fingerprints, positions := make([]string, len(counts)), make([]int64, len(counts))
		for i, c := range counts {
			fingerprints[i], positions[i] = c.Fingerprint, c.First
			if d.hasFailed(c.Fingerprint) { // another event may lack something else under the same fingerprint
				positions[i] = c.First + rand.Int64N(c.Last-c.First+1) //nolint:gosec // it decides nothing
			}
		}
		if err := d.store.Schedule(ctx, d.source.cfg.Function, fingerprints, positions, wait); err != nil {
			return err
		}
	}
	return nil
}

func (d *deferrals) hasFailed(fingerprint string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed[fingerprint] > 0
}

// runPasses runs the events of fingerprints of which one event was committed.
func (d *deferrals) runPasses(ctx context.Context) error {
	d.mu.Lock()
	passes := maps.Clone(d.passes)
	d.mu.Unlock()
	var unreadable error
	for fingerprint, after := range passes {
		for room := d.room(); room > 0; room = d.room() {
			rows, err := d.store.After(ctx, d.source.cfg.Function, fingerprint, after, room)
			if err != nil {
				return err
			}
			if err := d.run(rows); err != nil {
				unreadable = err
			}
			d.mu.Lock()
			if len(rows) == 0 {
				delete(d.passes, fingerprint)
			} else {
				after = rows[len(rows)-1].Position
				d.passes[fingerprint] = after
			}
			d.mu.Unlock()
			if len(rows) == 0 {
				break
			}
		}
	}
	return unreadable
}

// run delivers the events of rows. The error names an event that cannot be read; the others
// are delivered.
func (d *deferrals) run(rows []deferred.Row) (unreadable error) {
	for i := range rows {
		r := &rows[i]
		d.mu.Lock()
		ended := d.ended[r.Position]
		d.mu.Unlock()
		if ended {
			continue
		}
		ev, err := cloudevent.ReadJSON(r.Event, cloudevent.Rules{})
		if err != nil {
			unreadable = fmt.Errorf("read deferred event %s of %s: %w", r.ID, r.Source, err)
			continue
		}
		m := &deferredMessage{deferrals: d, key: r.Key, position: r.Position, fingerprint: r.Fingerprint, arrived: r.Arrived, size: len(r.Event), event: ev}
		d.partition.Receive(m, &delivery.Delivery{Event: ev, Alone: true, DeferredKey: r.Key.String()}, inflight.EventID{Source: r.Source, ID: r.ID}, ev.Subject())
	}
	return unreadable
}

// nextRun returns what happens to a deferred event that ran and failed because the deployment
// still lacks something: it stays deferred.
func (d *deferrals) nextRun(ctx context.Context, e *inflight.Entry) inflight.Next {
	lack := &e.Delivery.Lack
	m, _ := e.Message.(*deferredMessage)
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	err := d.store.Postpone(saving, d.source.cfg.Function, deferred.Event{
		Key: m.key, ID: e.ID.ID, Version: lack.Version, Fingerprint: lack.Fingerprint, Reason: lack.Reason, Held: d.held(e),
	})
	if err != nil {
		d.running.Failed(ctx, err) // it runs again
	}
	d.mu.Lock()
	d.failed[m.fingerprint]++
	d.mu.Unlock()
	return inflight.Drop
}

// committed records that a deferred event is committed, so that the others of its fingerprint
// run. It is called with the lock held.
func (d *deferrals) committed(fingerprint string) {
	if d.failed[fingerprint] = 0; d.counts[fingerprint].Events < 2 {
		return
	}
	if _, running := d.passes[fingerprint]; running {
		return
	}
	d.passes[fingerprint] = 0
	d.source.cfg.Logger.LogAttrs(context.Background(), slog.LevelInfo, "a deferred event was committed; running the others of its fingerprint",
		slog.String("missing", fingerprint), slog.Int64("events", d.counts[fingerprint].Events))
}

// deleteSettled deletes finished events until ctx ends, and then the rest.
func (d *deferrals) deleteSettled(ctx context.Context) {
	ticker := time.NewTicker(deleteInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			d.deleteOnce(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
			defer cancel()
			d.deleteOnce(ctx)
			return
		}
	}
}

// deleteOnce deletes finished events. If that fails, they are deleted later; a source that
// starts before then runs them again, and finds them in the ledger.
func (d *deferrals) deleteOnce(ctx context.Context) {
	d.mu.Lock()
	settled := d.settled
	d.settled = nil
	d.mu.Unlock()
	if len(settled) == 0 {
		return
	}
	var committed, dead []ledger.Key
	for _, m := range settled {
		if m.dead {
			dead = append(dead, m.key)
		} else {
			committed = append(committed, m.key)
		}
	}
	deleting, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	err := d.delete(deleting, committed, dead)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.deleting.Failed(ctx, err)
		d.settled = append(settled, d.settled...)
		return
	}
	d.deleting.Succeeded(ctx)
	for _, m := range settled {
		delete(d.ended, m.position)
	}
}

func (d *deferrals) delete(ctx context.Context, committed, dead []ledger.Key) error {
	if len(committed) > 0 {
		if err := d.store.DeleteCommitted(ctx, committed); err != nil {
			return err
		}
	}
	if len(dead) > 0 {
		return d.store.Delete(ctx, dead)
	}
	return nil
}

func (d *deferrals) name() string { return "deferred" }

// Failed attempts of deferred events are counted in this process.
func (d *deferrals) recordFailure(*inflight.Entry)  {}
func (d *deferrals) forgetAttempts(*inflight.Entry) {}

// vanished is never called: the database deletes no events.
func (d *deferrals) vanished(context.Context, uint64, uint64) {}

// fetch is never called: few deferred events are in flight, so no payload is evicted.
func (d *deferrals) fetch(_ context.Context, m eventing.Message) (eventing.Message, error) {
	return m, nil
}

func (d *deferrals) fetchFailed(context.Context, error) {}

// origin is never called: a deferred event is not deferred again.
func (d *deferrals) origin(*inflight.Entry) origin { return origin{} }

// deferredMessage is a deferred event that runs again.
type deferredMessage struct {
	deferrals   *deferrals
	key         ledger.Key
	position    int64
	fingerprint string
	arrived     time.Time
	size        int
	event       event.Event
	dead        bool // the event is a dead letter
}

var _ eventing.Message = (*deferredMessage)(nil)

// Sequence implements [eventing.Message].
func (m *deferredMessage) Sequence() uint64 { return uint64(m.position) }

// Arrived implements [eventing.Message].
func (m *deferredMessage) Arrived() time.Time { return m.arrived }

// Pending implements [eventing.Message]. A deferred event is part of no backlog.
func (m *deferredMessage) Pending() uint64 { return 0 }

// Size implements [eventing.Message].
func (m *deferredMessage) Size() int { return m.size }

// Event implements [eventing.Message].
func (m *deferredMessage) Event() event.Event { return m.event }

// InProgress implements [eventing.Message].
func (m *deferredMessage) InProgress() error { return nil }

// Nak implements [eventing.Message]. The event stays deferred.
func (m *deferredMessage) Nak() error { return nil }

// WithoutPayload implements [eventing.Message].
func (m *deferredMessage) WithoutPayload() eventing.Message {
	without := *m
	without.event = event.Event{}
	return &without
}

// Ack implements [eventing.Message]: the event is deleted soon.
func (m *deferredMessage) Ack() error {
	d := m.deferrals
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = append(d.settled, m)
	d.ended[m.position] = true
	if !m.dead {
		d.committed(m.fingerprint)
	}
	return nil
}

// deferredCounts returns the counts of deferred events, the largest first; nil if the
// source defers nothing.
func (d *deferrals) deferredCounts() []deferred.Count {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := slices.AppendSeq(make([]deferred.Count, 0, len(d.counts)), maps.Values(d.counts))
	slices.SortFunc(counts, func(a, b deferred.Count) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Fingerprint, b.Fingerprint))
	})
	return counts
}
