package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deferred"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// deferBatch bounds the events that are deferred in one transaction.
	deferBatch = 500

	// laterAttempts is the number of failed attempts after which an event is deferred whose
	// fingerprint has been deferred before.
	laterAttempts = 2

	// deferRetry is the time after which an event is sent again that could not be deferred.
	deferRetry = 5 * time.Second

	// maxLacks bounds the remembered fingerprints, and versions of functions. An event of
	// another fingerprint waits for its own time.
	maxLacks = 1000

	// fullPoll is the time between checks whether a paused source may defer again.
	fullPoll = 100 * time.Millisecond
)

// deferrals defers events that only a change of the deployment can fix, while other events of
// their function are committed. Deferred events are stored and acknowledged, so that they delay
// no other event, and run again after the change (deferredrun.go).
//
// The first event of a fingerprint waits as long as an event that breaks the function; later
// ones are attempted twice. When waiting events fill half of the in-flight table, one attempt is
// enough. In every case the same version of the function must have committed another event in
// this cluster since the event failed first. Otherwise the failure is an outage, and the event
// waits. An event that another cluster has deferred for the same reason is deferred here too,
// because this cluster may be committing nothing.
type deferrals struct {
	source    *Source
	store     Deferred
	partition *inflight.Partition
	storing   *failurelog.Log
	running   *failurelog.Log
	deleting  *failurelog.Log
	roomAgain chan struct{} // holds a token when more may be deferred

	mu        sync.Mutex
	won       map[version]time.Time       // when the version committed its latest event
	since     map[deferred.Lack]time.Time // when the first event failed
	counts    map[string]deferred.Count   // by fingerprint
	events    int64                       // of all fingerprints, including events deferred since the count
	bytes     int64
	elsewhere map[deferred.Lack]bool
	crowded   bool            // waiting events fill half of the table
	logged    map[string]bool // fingerprints
	full      bool            // and logged

	runs
}

// version is a version of a function.
type version struct{ function, version string }

// newDeferrals returns the deferrals of a source; nil if it defers nothing.
func newDeferrals(s *Source) *deferrals {
	if s.cfg.Deferred == nil {
		return nil
	}
	d := &deferrals{
		source:    s,
		store:     s.cfg.Deferred,
		partition: s.table.DeferredPartition(),
		storing:   failurelog.New(s.cfg.Logger, s.cfg.Now, "deferring events; they wait in the stream and are attempted again"),
		running:   failurelog.New(s.cfg.Logger, s.cfg.Now, "running deferred events; they stay deferred"),
		deleting:  failurelog.New(s.cfg.Logger, s.cfg.Now, "deleting deferred events; they are deleted later"),
		roomAgain: make(chan struct{}, 1),
		won:       map[version]time.Time{},
		since:     map[deferred.Lack]time.Time{},
		counts:    map[string]deferred.Count{},
		elsewhere: map[deferred.Lack]bool{},
		logged:    map[string]bool{},
		runs:      newRuns(),
	}
	d.partition.Owner = d
	return d
}

// noteWon records that events were committed, so that their versions of functions can commit.
func (d *deferrals) noteWon(entries []*inflight.Entry, sent []int, steps []delivery.Step) {
	if d == nil {
		return
	}
	now := d.source.cfg.Now()
	var last version
	for k, i := range sent {
		e, step := entries[i], &steps[k]
		if step.Outcome.Kind != outcome.Committed || e.Delivery.DeadLetter {
			continue
		}
		if lack := e.Delivery.Lack; lack.Fingerprint != "" {
			d.mu.Lock()
			delete(d.since, deferred.Lack{Fingerprint: lack.Fingerprint, Version: lack.Version}) // the deployment has changed
			d.mu.Unlock()
		}
		if !step.Outcome.Won {
			continue
		}
		if v := (version{d.source.functionOf(e.Type), d.source.sender.VersionOf(step.Versions, e.Type)}); v != last {
			last = v
			d.mu.Lock()
			if _, known := d.won[v]; !known {
				if d.renewed = true; len(d.won) >= maxLacks {
					clear(d.won)
				}
			}
			d.won[v] = now
			d.mu.Unlock()
		}
	}
}

// next returns what happens to an entry that only a change of the deployment can fix.
func (d *deferrals) next(e *inflight.Entry, step delivery.Step) (inflight.Next, time.Duration) {
	lack := &e.Delivery.Lack
	if d == nil || lack.Fingerprint == "" {
		return inflight.Unavailable, step.RetryIn
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.waitsFor(lack)
	switch {
	case !d.may(e):
		return inflight.Unavailable, step.RetryIn
	case d.crowded, left <= 0 && lack.Attempts >= laterAttempts:
		return inflight.Defer, 0
	case left <= 0:
		return inflight.Retry, step.RetryIn
	default:
		return inflight.Unavailable, min(step.RetryIn, max(left, time.Millisecond))
	}
}

// waitsFor returns how long the first event of a fingerprint still waits. It is called with the
// lock held.
func (d *deferrals) waitsFor(lack *delivery.Lack) time.Duration {
	if d.counts[lack.Fingerprint].Events > 0 {
		return 0
	}
	key := deferred.Lack{Fingerprint: lack.Fingerprint, Version: lack.Version}
	since, known := d.since[key]
	if !known {
		if since = lack.Since; len(d.since) < maxLacks {
			d.since[key] = since
		}
	}
	if lack.Since.Before(since) {
		since = lack.Since
	}
	return since.Add(d.source.sender.TryFor()).Sub(d.source.cfg.Now())
}

// may reports whether an entry may be deferred, because this cluster or another one works.
// It is called with the lock held.
func (d *deferrals) may(e *inflight.Entry) bool {
	lack := &e.Delivery.Lack
	return d.proven(e) || d.elsewhere[deferred.Lack{Fingerprint: lack.Fingerprint, Version: lack.Version}]
}

// proven reports whether the same version of the function has committed an event in this cluster
// since the entry failed first. It is called with the lock held.
func (d *deferrals) proven(e *inflight.Entry) bool {
	lack := &e.Delivery.Lack
	return d.won[version{d.source.functionOf(e.Type), lack.Version}].After(lack.Since)
}

// isFull reports whether the limit of deferred events is reached. It is called with the
// lock held.
func (d *deferrals) isFull() bool {
	return d.events >= deferred.MaxEvents || d.bytes >= deferred.MaxBytes
}

// mayDefer reports whether more events may be deferred.
func (d *deferrals) mayDefer() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.isFull()
}

// ready returns why the source pauses; nil if it does not.
func (d *deferrals) ready() error {
	if d == nil || d.mayDefer() {
		return nil
	}
	return errDeferredFull
}

var errDeferredFull = fmt.Errorf("%d events, or %d MiB of them, are deferred, which is the limit; the source pauses: apply the missing migration or grant, or drop the events (tandem deferred list)",
	deferred.MaxEvents, deferred.MaxBytes>>20)

// awaitRoom waits until more events may be deferred, and reports false if done is closed first.
// While it waits, nothing is pulled.
func (d *deferrals) awaitRoom(done <-chan struct{}) bool {
	return d == nil || pollUntil(d.mayDefer, fullPoll, done)
}

// deferAll defers entries until ctx ends.
func (d *deferrals) deferAll(ctx context.Context) {
	wait := backoff.Backoff{Base: retryBase, Limit: retryLimit}
	for {
		select {
		case <-d.source.table.DeferReady():
		case <-d.roomAgain:
		case <-ctx.Done():
			return
		}
		for d.mayDefer() && d.source.active() {
			entries := d.source.table.NextToDefer(deferBatch)
			if len(entries) == 0 {
				break
			}
			if err := d.deferEntries(ctx, entries); err != nil {
				d.storing.Failed(ctx, err)
				backoff.Sleep(ctx, &wait)
				continue
			}
			d.storing.Succeeded(ctx)
			wait.Reset()
		}
	}
}

// deferEntries stores entries and acknowledges them. An entry that cannot be encoded or
// stored is sent again later.
func (d *deferrals) deferEntries(ctx context.Context, entries []*inflight.Entry) error {
	var errs []error
	var storable []*inflight.Entry
	var rows []deferred.Event
	for _, e := range entries {
		row, err := d.row(ctx, e)
		switch {
		case err == nil:
			storable, rows = append(storable, e), append(rows, row)
			continue
		case errors.Is(err, eventing.ErrGone):
			d.source.gone(ctx, e)
		default:
			errs = append(errs, err)
		}
		d.finish(ctx, []*inflight.Entry{e}, []bool{errors.Is(err, eventing.ErrGone)})
	}
	if len(storable) > 0 {
		errs = append(errs, d.save(ctx, storable, rows))
	}
	return errors.Join(errs...)
}

// finish acknowledges the entries whose done is true; the others are sent again later.
func (d *deferrals) finish(ctx context.Context, entries []*inflight.Entry, done []bool) {
	for _, e := range d.source.table.Deferred(entries, done, deferRetry) {
		ownerOf(e).forgetAttempts(e)
		d.source.acknowledge(ctx, e)
	}
}

// save stores the rows of entries and acknowledges the entries. If several cannot be stored, each
// half is stored separately, because one of them may be the cause.
func (d *deferrals) save(ctx context.Context, entries []*inflight.Entry, rows []deferred.Event) error {
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	results, err := d.store.Defer(saving, d.source.cfg.Function, rows, probeBase)
	if err != nil && len(entries) > 1 && saving.Err() == nil {
		half := len(entries) / 2
		return errors.Join(d.save(ctx, entries[:half], rows[:half]), d.save(ctx, entries[half:], rows[half:]))
	}
	done := make([]bool, len(entries))
	for i := range results {
		done[i] = results[i] != deferred.Unproven
		d.note(ctx, entries[i], &rows[i], results[i])
	}
	d.finish(ctx, entries, done)
	return err
}

// note records the result of deferring an event.
func (d *deferrals) note(ctx context.Context, e *inflight.Entry, row *deferred.Event, result deferred.Result) {
	switch result {
	case deferred.Unproven:
	case deferred.Committed:
		d.source.cfg.Metrics.skippedSome(ctx, 1)
	case deferred.BelowHorizon:
		d.source.cfg.Metrics.forgottenOne(ctx)
	case deferred.Stored:
		if d.source.cfg.Ordered && e.Subject != "" {
			d.source.table.Block(ledger.BlockedEvent{Subject: e.Subject, Source: e.ID.Source, ID: e.ID.ID})
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events++
		d.bytes += int64(len(row.Event))
		c := d.counts[row.Fingerprint]
		c.Fingerprint = row.Fingerprint
		c.Events++
		d.counts[row.Fingerprint] = c
		if d.logged[row.Fingerprint] {
			return
		}
		d.logged[row.Fingerprint] = true
		d.source.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "events are deferred until the deployment changes: apply the missing migration or grant, then they run by themselves (tandem deferred list)",
			slog.String("missing", row.Fingerprint), slog.String("version", row.Version), slog.Bool("held", row.Held),
			slog.String("event_source", row.Source), slog.String("event_id", row.ID), slog.String("event_type", row.Type), slog.String("reason", row.Reason))
	}
}

// row returns the row of an entry.
func (d *deferrals) row(ctx context.Context, e *inflight.Entry) (deferred.Event, error) {
	lack := &e.Delivery.Lack
	owner := ownerOf(e)
	row := deferred.Event{
		Key: ledger.NewKey(d.source.functionOf(e.Type), e.ID.Source, e.ID.ID), Source: e.ID.Source, ID: e.ID.ID, Type: e.Type, Subject: e.Subject,
		Arrived: e.Message.Arrived(), Version: lack.Version, Fingerprint: lack.Fingerprint, Reason: lack.Reason,
		Held: d.held(e), Attempts: lack.Attempts, Failing: max(0, d.source.cfg.Now().Sub(lack.Since)),
	}
	d.mu.Lock()
	row.Proven = d.proven(e)
	d.mu.Unlock()
	read := owner.origin(e)
	row.Stream, row.Epoch, row.Sequence = read.stream, read.epoch, read.sequence
	ev := e.Delivery.Event
	if e.Evicted {
		message, err := owner.fetch(ctx, e.Message)
		if err != nil {
			return row, err
		}
		ev = message.Event()
	}
	var err error
	row.Event, err = cloudevent.AppendJSON(nil, ev)
	return row, err
}

// held reports whether an event runs only on an operator's command: its effects depend on
// the order of events, and no order is kept for it.
func (d *deferrals) held(e *inflight.Entry) bool {
	switch e.Delivery.Lack.EffectClass {
	case outcome.Commuting, outcome.Inserting:
		return false
	}
	return !d.source.cfg.Ordered || e.Subject == ""
}

// relieve defers every event that may be deferred when waiting events fill half of the
// in-flight table.
func (d *deferrals) relieve() {
	waiting, most := d.source.table.CountLacking()
	d.mu.Lock()
	d.crowded = waiting >= most/2
	crowded := d.crowded
	d.mu.Unlock()
	if crowded {
		d.source.table.DeferLacking(func(e *inflight.Entry) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.may(e)
		})
	}
}
