package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// asideInterval is the pause between two rounds over the events that are set
	// aside.
	asideInterval = 100 * time.Millisecond

	// maxFailed is how often a batch whose statements fail is retried before it is divided.
	maxFailed = 2

	// maxAsidePause bounds the pause between two attempts of a failing event. Such an
	// event may disrupt the whole database, for example by crashing its server process.
	maxAsidePause = 10 * time.Second

	// detachAfter is how long the other events of a CommitAll call wait for one that is
	// tried alone.
	detachAfter = 500 * time.Millisecond

	// maxDetached bounds the number of detached offers. Each is retried for detachedFor
	// times the commit timeout.
	maxDetached, detachedFor = 64, 4

	// maxFailures bounds the events whose failures a writer remembers.
	maxFailures = 1024

	// slowParts is the number of parts into which a batch is divided after a statement
	// timed out. Each level of division costs one timeout.
	slowParts = 8

	// batchPart, dividedPart and asidePart divide the commit timeout: for a batch, for a part
	// of a batch that timed out, and for an event that is set aside. The quotient, at least
	// leastTimeout, plus the lock timeout is the statement timeout.
	batchPart, dividedPart, asidePart = 25, 50, 4
	leastTimeout                      = 100 * time.Millisecond

	// slowRest is the pause after a slow event failed, as a multiple of the attempt's
	// duration, before an event that has failed earlier is tried: each attempt may hold
	// locks that others wait for. An event that has not failed yet waits for a third of
	// it.
	slowRest = 3
)

// aside holds offers that are tried one at a time, apart from the batches, so that an event
// that waits for another session's lock, or whose statements fail or are slow, does not
// hold up the others. [Writer].mu guards it.
type aside struct {
	offers []*offer
	since  time.Time     // when a slow offer failed last
	rest   time.Duration // the pause after it
}

// failure is what a writer remembers of an event that was set aside, so that its next offer
// does not enter a batch.
type failure struct {
	failed  int    // how often it failed alone, each time after other events were committed
	won     int64  // the number of committed events of its function at that time
	slow    bool   // its statements took longer than a batch allows
	verdict *Error // the result for the next offer, because no caller waited any longer
	pending bool   // a detached offer is in progress
}

// eventType identifies the events of one type that a function handles.
type eventType struct{ function, name string }

// badTypes holds the event types of which more events were isolated lately than committed,
// because their statements fail or are slow. Events of these types do not enter a batch,
// which would have to be divided for each of them.
type badTypes struct {
	some  atomic.Bool // whether the map has an element
	mu    sync.Mutex
	types map[eventType]badType
}

// A badType is how many more events of a type were isolated than committed, up to
// maxBadType. From minBadType on, the type is bad.
type badType struct {
	more int
	slow bool // the latest one was slow
}

const minBadType, maxBadType = 3, 8

// typeOf returns the type of an offer's event.
func typeOf(o *offer) eventType { return eventType{o.function, o.event.Type()} }

// isolated counts an event that fails or is slow.
func (b *badTypes) isolated(o *offer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.types == nil {
		b.types = map[eventType]badType{}
	}
	t := typeOf(o)
	b.types[t] = badType{min(b.types[t].more+1, maxBadType), o.timedOut}
	b.some.Store(true)
}

// committed counts events that were committed.
func (b *badTypes) committed(offers []*offer) {
	if !b.some.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range offers {
		t := typeOf(o)
		if bad := b.types[t]; bad.more > 1 {
			bad.more--
			b.types[t] = bad
		} else {
			delete(b.types, t)
		}
	}
	b.some.Store(len(b.types) > 0)
}

// has reports whether the event's type is bad, and whether it is slow.
func (b *badTypes) has(o *offer) (bad, slow bool) {
	if !b.some.Load() {
		return false, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.types[typeOf(o)]
	return t.more >= minBadType, t.slow
}

// average is a moving average of durations.
type average struct{ nanoseconds atomic.Int64 }

func (a *average) add(d time.Duration) {
	old := a.nanoseconds.Load()
	a.nanoseconds.Store(old + (int64(d)-old)/8)
}

// statementTimeout returns how long a statement may take while other events wait for it: a
// fraction of the commit timeout, or more if batches usually take long. A wait for a lock
// times out earlier.
func (w *Writer) statementTimeout(part, lockTimeout time.Duration) time.Duration {
	limit := max(w.config.CommitTimeout/part, leastTimeout, 8*time.Duration(w.usual.nanoseconds.Load()))
	return min(limit+lockTimeout, w.wholeTimeout())
}

// shortTry is an attempt that waits for a lock for a fraction of the claim
// timeout.
func (w *Writer) shortTry(part time.Duration) try {
	lockTimeout := w.config.ClaimTimeout / 4
	return try{lockTimeout: lockTimeout, statementTimeout: w.statementTimeout(part, lockTimeout)}
}

// wholeTimeout is the statement timeout of an event that is tried alone. It is below the
// commit timeout, so that the server answers in time.
func (w *Writer) wholeTimeout() time.Duration { return w.config.CommitTimeout * 9 / 10 }

// waitedInVain reports whether a batch exceeded its lock timeout, or its claim the
// statement timeout. A lock of a hanging writer is released before the second attempt. So
// at the second time another session holds it, such as an operator's open transaction.
func waitedInVain(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	var applied *effectsError
	return answer.Code == "55P03" && !raised(answer) || answer.Code == "57014" && !errors.As(err, &applied)
}

// suspicious reports whether one event of a batch may have caused err, although an outage
// is possible, too. It is false for a slow COMMIT, which waits for a standby, and for an
// error of the writer's own statements unless they timed out: the event may be large.
func suspicious(err error) bool {
	var applied *effectsError
	waitsForStandby := errors.Is(err, errUnknown) && errors.Is(err, context.DeadlineExceeded)
	return errors.As(err, &applied) && !waitedInVain(err) && !waitsForStandby && (!ownStatement(err) || timedOut(err))
}

// ownStatement reports whether err is the server's answer to one of the writer's
// own statements.
func ownStatement(err error) bool {
	var statement *statementError
	return errors.As(err, &statement) && !statement.effect
}

// timedOut reports whether the statements of functions exceeded their timeout.
func timedOut(err error) bool {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code == "57014" || answer.Code == "25P04" // statement_timeout, transaction_timeout
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// suspect records that an event failed alone, and returns the final error once it is certain
// that the event is the cause.
//
// A broken database answers in the same way as one in which only the statements of this
// event fail. So a failure counts only if it is the event's first, or if other events of its
// function were committed since the previous one: then the database works, and the event is
// the cause. The error is FaultFunction (an attempt) for a timeout, or for an error that the
// server returned for a statement of the function. Lost connections, deadlocks, full disks
// and other errors that faultOf classifies as transient do not count.
func (w *Writer) suspect(o *offer, err error) *Error {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.failureOf(o)
	won := o.counters.won.Load()
	counts := f.failed == 0 || won > f.won
	if counts {
		f.failed++
		f.won = won
	}
	o.pause = min(max(asideInterval<<min(f.failed, 6), 2*o.pause), maxAsidePause)
	if !counts || f.failed == 1 || ownStatement(err) {
		return nil
	}
	verdict := asError(o, err)
	verdict.Fault = FaultFunction
	var statement *statementError
	switch {
	case timedOut(err):
		verdict.Err = fmt.Errorf("its statements take longer than the commit timeout of %s, alone, while other events of the function are committed: %w", w.config.CommitTimeout, err)
	case errors.As(err, &statement) && statement.effect && faultOf(statement.err) == FaultFunction:
		verdict.Err = fmt.Errorf("its statements fail, alone, while other events of the function are committed: %w", err)
	default:
		return nil
	}
	if o.detached || !o.waited() {
		f.verdict = verdict
	}
	return verdict
}

// failureOf returns the failure record of an offer's event, and creates it if there is
// none. Callers hold mu.
func (w *Writer) failureOf(o *offer) *failure {
	f := w.failures[o.key]
	if f == nil {
		if w.failures == nil {
			w.failures = map[ledger.Key]*failure{}
		}
		for key := range w.failures {
			if len(w.failures) < maxFailures {
				break
			}
			delete(w.failures, key) // any of them: it is recorded again at its next failure
		}
		f = &failure{}
		w.failures[o.key] = f
	}
	return f
}

// forget deletes the failure record of an offer's event.
func (w *Writer) forget(o *offer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.failures, o.key)
}

// divert removes the offers whose events were set aside before, or are of a bad type,
// and sets them aside at once. Callers hold mu.
func (w *Writer) divert(offers []*offer) []*offer {
	if len(w.failures) == 0 && !w.badTypes.some.Load() {
		return offers
	}
	return slices.DeleteFunc(slices.Clone(offers), func(o *offer) bool {
		f := w.failures[o.key]
		switch {
		case f == nil:
			return w.divertBad(o)
		case f.verdict != nil:
			w.refuse(o, f.verdict)
			f.verdict = nil
		case f.slow:
			w.addSlow(o)
		default:
			w.addAside(&w.aside, o, w.tryAside)
		}
		return true
	})
}

// divertBad sets an offer aside if it is of a bad type, and reports whether it is. Callers
// hold mu.
func (w *Writer) divertBad(o *offer) bool {
	bad, slow := w.badTypes.has(o)
	switch {
	case bad && slow:
		w.addSlow(o)
	case bad:
		w.addAside(&w.aside, o, w.tryAside)
	}
	return bad
}

// dropBad removes the offers of bad types from a batch and sets them aside.
func (w *Writer) dropBad(batch []*offer) []*offer {
	if !w.badTypes.some.Load() {
		return batch
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(batch, w.divertBad)
}

// addAside adds an offer to a, and starts a's goroutine with run if it is not
// running. Callers hold mu.
func (w *Writer) addAside(a *aside, o *offer, run func()) {
	o.since = now()
	a.offers = append(a.offers, o)
	if len(a.offers) == 1 {
		w.done.Add(1)
		go run()
	}
}

// setAside removes an offer from the batches. It is retried on its own until it is
// committed, its error is final, or no caller waits for it.
func (w *Writer) setAside(o *offer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failureOf(o)
	w.addAside(&w.aside, o, w.tryAside)
}

// setSlow does the same for an offer whose statements take longer than a batch allows.
func (w *Writer) setSlow(o *offer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addSlow(o)
}

// addSlow adds an offer to the slow ones. The other offers of its CommitAll call do not
// wait for it. Callers hold mu.
func (w *Writer) addSlow(o *offer) {
	w.failureOf(o).slow = true
	if o.waiter.several {
		o = w.detach(o)
	}
	if o != nil {
		w.addAside(&w.slow, o, w.trySlow)
	}
}

// errAside is the error of an offer that is answered while the event is still
// being tried.
var errAside = errors.New("the event is being retried alone, apart from the batches; offer it again to learn the outcome")

// detach answers an offer, so that the other offers of its CommitAll call need not wait. It
// returns an offer of the same event that is tried in its place. If that one is committed,
// the next offer of the event loses; if it fails for good, the next offer receives the error.
// It returns nil if the event already has a detached offer, or if maxDetached is reached.
// Callers hold mu.
func (w *Writer) detach(o *offer) *offer {
	f := w.failureOf(o)
	w.refuse(o, &Error{Fault: FaultTransient, Function: o.function, Err: o.late(errAside)})
	if f.pending || w.detached >= maxDetached {
		return nil
	}
	ctx, cancel := context.WithTimeout(w.detaching, detachedFor*w.config.CommitTimeout)
	d := &offer{
		function: o.function, version: o.version, writer: o.writer, counters: o.counters, key: o.key, digest: o.digest,
		event: o.event, effects: o.effects, encoded: o.encoded, outputs: o.outputs, size: o.size, written: o.written, executes: o.executes, exec: o.exec,
		asWritten: o.asWritten, findsRows: o.findsRows, unsure: o.unsure, pause: o.pause, next: o.next, timedOut: o.timedOut,
		waiter: &waiter{ctx: ctx, done: make(chan struct{})}, detached: true,
	}
	d.waiter.pending.Store(1)
	f.pending = true
	w.detached++
	go func() {
		<-d.waiter.done
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		f.pending = false
		w.detached--
	}()
	return d
}

// remove removes offers from a, and reports whether none is left. Then the caller's
// goroutine must end.
func (w *Writer) remove(a *aside, ended ...*offer) (none bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.offers = slices.DeleteFunc(a.offers, func(o *offer) bool { return slices.Contains(ended, o) })
	return len(a.offers) == 0
}

// tryAside tries the offers that are set aside, one after the other, in rounds. Each
// attempt waits for a lock for a fraction of the claim timeout only, and then releases its
// claim.
func (w *Writer) tryAside() {
	defer w.done.Done()
	for {
		w.sleep(asideInterval)
		w.mu.Lock()
		waiting := slices.Clone(w.aside.offers)
		w.mu.Unlock()
		var ended []*offer
		for _, o := range waiting {
			if w.ctx.Err() == nil && o.waited() && now().Before(o.next) {
				continue
			}
			if o.waiter.several && now().Sub(o.since) > detachAfter {
				w.mu.Lock()
				if d := w.detach(o); d != nil {
					w.addAside(&w.aside, d, w.tryAside)
				}
				w.mu.Unlock()
				ended = append(ended, o)
				continue
			}
			if _, slow := w.badTypes.has(o); slow && o.timedOut {
				w.setSlow(o)
				ended = append(ended, o)
				continue
			}
			how := w.shortTry(asidePart)
			how.alone, how.since = true, now()
			done, slow := w.tryOne(o, how)
			if slow {
				w.setSlow(o)
			}
			if done || slow {
				ended = append(ended, o)
			}
		}
		if w.remove(&w.aside, ended...) {
			return
		}
	}
}

// trySlow tries the slow offers, those that have not failed yet first, with a pause
// after each failure.
func (w *Writer) trySlow() {
	defer w.done.Done()
	for {
		o, wait := w.nextSlow()
		switch {
		case o == nil:
			return
		case wait > 0:
			w.sleep(min(wait, asideInterval))
			continue
		}
		begin := now()
		done, _ := w.tryOne(o, try{statementTimeout: w.wholeTimeout(), alone: true, since: begin})
		if !done || o.result.err != nil {
			w.mu.Lock()
			w.slow.rest = now().Sub(begin)
			w.slow.since = now()
			w.mu.Unlock()
		}
		if done && w.remove(&w.slow, o) {
			return
		}
	}
}

// nextSlow returns the slow offer that is tried next and the delay before it. It returns
// nil if there is none; then the goroutine must end.
func (w *Writer) nextSlow() (*offer, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var next *offer
	w.slow.offers = slices.DeleteFunc(w.slow.offers, func(o *offer) bool {
		if w.ctx.Err() == nil && len(dropAbandoned([]*offer{o})) == 0 {
			return true
		}
		f := w.failures[o.key]
		o.failed = f != nil && f.failed > 0
		if next == nil || next.failed && !o.failed {
			next = o
		}
		return false
	})
	if next == nil || w.ctx.Err() != nil {
		return next, 0
	}
	rest := w.slow.rest
	if next.failed {
		rest *= slowRest
	}
	return next, max(w.slow.since.Add(rest).Sub(now()), next.next.Sub(now()))
}

// tryOne tries one offer that is set aside. It reports whether the offer is finished, and
// otherwise whether its statements timed out.
func (w *Writer) tryOne(o *offer, how try) (done, slow bool) {
	if len(dropAbandoned([]*offer{o})) == 0 {
		return true, false
	}
	left, err := w.attemptSafely([]*offer{o}, how)
	var offending *offerError
	switch {
	case err == nil || len(left) == 0:
		w.forget(o)
		return true, false
	case errors.Is(err, errOutdated) && o.outdated < maxOutdated:
		o.outdated++
		return false, false
	case errors.As(err, &offending):
		w.forget(o)
		w.refuse(o, offending.err)
		return true, false
	case findRows([]*offer{o}, err):
		return false, false
	case attributable(err) && !o.asWritten && ordered(err):
		o.asWritten = true
		return false, false
	case attributable(err):
		w.forget(o)
		w.refuse(o, asError(o, err))
		return true, false
	case w.ctx.Err() != nil:
		o.finish(result{err: ErrClosed})
		return true, false
	case suspicious(err) && timedOut(err) && how.statementTimeout < w.wholeTimeout():
		return false, true
	case suspicious(err):
		if verdict := w.suspect(o, err); verdict != nil {
			w.refuse(o, verdict)
			return true, false
		}
		o.next = now().Add(o.pause)
	}
	trouble := err
	o.trouble.Store(&trouble)
	w.stats.retries.Add(1)
	w.config.Logger.LogAttrs(w.ctx, slog.LevelDebug, "retrying an event alone",
		slog.String("function", o.function), slog.String("event_source", o.event.Source()), slog.String("event_id", o.event.ID()), slog.Any("err", err))
	return false, false
}
