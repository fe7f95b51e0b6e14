package sinkwriter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-retry"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// quickWorkers is how many batches are committed at the same time as soon as an offer is
	// waiting. For further ones half a batch must be waiting, or an offer for workerPatience,
	// because fewer and larger batches cost less.
	quickWorkers   = 2
	workerPatience = 10 * time.Millisecond
)

// Writer commits offers, many in one transaction. It is safe for concurrent
// use. Close it to have its outputs published.
type Writer struct {
	pool    *pgxpool.Pool
	config  Config
	catalog catalog
	outbox  *outbox
	stats   counters

	functions sync.Map // maps names to *functionCounters

	known atomic.Pointer[writerKnown]

	// connecting bounds how long the pool tries other hosts before the one that accepts a
	// connection.
	connecting time.Duration

	// left has an element for each COMMIT that runs in the background on a connection
	// outside the pool. unanswered are those without an answer for longer than the commit
	// timeout.
	left       chan struct{}
	unanswered atomic.Int64

	// losing counts the consecutive batches that another cluster had committed entirely.
	// From aheadAfter on the other cluster is ahead, and batches are looked up before they
	// are claimed.
	losing atomic.Int32

	// stop cancels running attempts, when Close cannot wait longer.
	stop context.CancelFunc
	ctx  context.Context

	// stopDetached cancels the context of detached offers.
	stopDetached context.CancelFunc
	detaching    context.Context

	done sync.WaitGroup

	usual       average // the usual duration of a batch's effects and COMMIT
	distance    distance
	badTypes    badTypes
	divergences divergences
	blockers    blockers

	mu          sync.Mutex
	closed      bool
	queue       []*offer
	queued      int // bytes of queue
	workers     int
	starting    bool // a worker is started soon
	aside, slow aside
	detached    int // number of detached offers
	failures    map[ledger.Key]*failure
}

// offer is an Offer that is being processed.
type offer struct {
	function, version string
	writer            int64
	counters          *functionCounters
	key               ledger.Key
	digest            digest
	event             event.Event
	effects           functions.Effects
	encoded           []functions.EncodedOutput
	outputs           []event.Event // encoded.outputs as events; nil until they are needed
	size              int           // approximate size in memory
	written           int           // approximate encoded size of its writes
	executes          bool
	deferred          bool   // its commit deletes rows of deferred_event
	asWritten         bool   // its writes are not sorted, because the sorted order failed
	findsRows         bool   // all its upserts find the row before they insert, because one without was rejected
	unsure            bool   // it may have been committed
	exec              []byte // its first statement, in canonical form

	// While it is set aside: the time since, the next attempt, the pause before it, whether an
	// attempt failed, and whether its statements timed out in a batch.
	since    time.Time
	next     time.Time
	pause    time.Duration
	failed   bool
	timedOut bool
	detached bool // its caller has received an answer
	outdated int  // number of attempts in which the schema had changed

	waiter    *waiter
	duplicate *offer // an equal offer in the same batch

	result   result
	finished atomic.Bool           // result is set
	trouble  atomic.Pointer[error] // the error of its batch's last attempt
}

type result struct {
	receipt Receipt
	err     error
}

// waiter is a caller that waits for one offer or for several.
type waiter struct {
	ctx     context.Context
	pending atomic.Int64
	done    chan struct{} // closed when nothing is pending
	several bool          // number of detached offers
}

// finish sets the result of an offer. Only the first call has an effect:
// after a panic it can be unclear which offers have a result.
func (o *offer) finish(r result) {
	if !o.finished.Load() {
		o.result = r
		o.finished.Store(true)
		if o.waiter.pending.Add(-1) == 0 {
			close(o.waiter.done)
		}
	}
	if o.duplicate != nil {
		r.receipt.Won = false
		o.duplicate.finish(r)
	}
}

// New returns a Writer that commits through pool. The pool needs one connection more than
// Config.Connections, to end sessions that hang; the caller closes it. New does not access
// the database: schema tandem must exist before the first offer ([schema.Migrate],
// [schema.Check]).
//
// Behind PgBouncer in transaction mode the pool's URL needs default_query_exec_mode=exec,
// unless PgBouncer supports prepared statements.
func New(pool *pgxpool.Pool, config Config) (*Writer, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &Writer{
		pool: pool, config: config, ctx: ctx, stop: stop, left: make(chan struct{}, config.Connections),
		connecting: connectTimeOf(pool.Config().ConnConfig),
	}
	w.detaching, w.stopDetached = context.WithCancel(ctx)
	w.outbox = newOutbox(w)
	return w, nil
}

// Commit commits the effects of one event, unless they were committed before.
// It returns after the server has answered COMMIT, or when ctx is done; then
// the outcome is unknown, and it is safe to offer the event again.
//
// Its error is always an [*Error], the error of ctx, or [ErrClosed].
func (w *Writer) Commit(ctx context.Context, offered Offer) (Receipt, error) {
	var outcome [1]Outcome
	w.commitAll(ctx, []Offer{offered}, outcome[:])
	return outcome[0].Receipt, outcome[0].Err
}

// Outcome is the result for one of several offers: a receipt, or an error as
// [Writer.Commit] returns it.
type Outcome struct {
	Receipt Receipt
	Err     error
}

// CommitAll is Commit for several events. It is faster than separate calls, in
// sequence or in a goroutine each. The outcomes are independent: a refused offer
// does not keep the others from being committed. They are in the order of the
// offers.
func (w *Writer) CommitAll(ctx context.Context, offers []Offer) []Outcome {
	outcomes := make([]Outcome, len(offers))
	w.commitAll(ctx, offers, outcomes)
	return outcomes
}

func (w *Writer) commitAll(ctx context.Context, offered []Offer, outcomes []Outcome) {
	c := &waiter{ctx: ctx, done: make(chan struct{})}
	offers := make([]offer, len(offered))
	waiting := make([]*offer, 0, len(offered))
	for i := range offered {
		o := &offers[i]
		o.waiter = c
		if err := w.prepare(ctx, o, &offered[i]); err != nil {
			w.countersOf(o.function).countRefused(err, 1)
			o.result.err = err
			o.finished.Store(true)
			continue
		}
		waiting = append(waiting, o)
	}
	if len(waiting) > 0 {
		c.pending.Store(int64(len(waiting)))
		c.several = len(waiting) > 1
		if err := w.enqueue(waiting); err != nil {
			for _, o := range waiting {
				o.finish(result{err: err})
			}
		}
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	for i := range offers {
		if o := &offers[i]; o.finished.Load() {
			outcomes[i] = Outcome{Receipt: o.result.receipt, Err: o.result.err}
		} else {
			outcomes[i].Err = fmt.Errorf("commit effects of function %s: %w", o.function, o.late(ctx.Err()))
		}
	}
}

// late returns the error of an offer whose caller stopped waiting. It includes the
// last error of the offer's batch, if there was one.
func (o *offer) late(err error) error {
	if trouble := o.trouble.Load(); trouble != nil {
		return fmt.Errorf("%w; the last try: %v", err, *trouble) //nolint:errorlint // for people; callers do not match it
	}
	return err
}

// prepare makes an offer ready for a batch, or returns the reason why it cannot
// enter one.
func (w *Writer) prepare(ctx context.Context, o *offer, offered *Offer) error {
	if err := w.fill(ctx, o, offered); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("commit effects of function %s: %w", o.function, err)
	}
	if len(o.encoded) > 0 && w.outbox.full() {
		return &Error{Fault: FaultTransient, Function: o.function, Err: ErrBacklog}
	}
	return nil
}

// fill checks an offer and encodes the parts that every batch needs.
func (w *Writer) fill(ctx context.Context, o *offer, offered *Offer) error {
	fault := func(err error) error {
		return &Error{Fault: FaultFunction, Function: offered.Function, Err: err}
	}
	o.function, o.version = offered.Function, offered.Version
	if o.function == "" || o.version == "" {
		return fault(errors.New("function or version is missing"))
	}
	var source, id string
	if offered.Event.Context != nil {
		source, id = cloudevent.Source(offered.Event), offered.Event.ID()
	}
	if source == "" || id == "" {
		return fault(errors.New("the event has no source or no id"))
	}
	known := w.writerOf(o.function, o.version)
	o.writer, o.counters = known.id, known.counters
	o.key = ledger.NewKey(o.function, source, id)
	o.event = offered.Event
	o.deferred = offered.Deferred
	o.effects = offered.Effects
	ofWrites, ofOutputs := sizeOf(o.effects)
	if err := checkEffectBytes(o.function, ofWrites+ofOutputs); err != nil {
		return err
	}
	var err error
	var outputs []functions.EncodedOutput
	var encoded int
	if w.config.NoDivergence {
		outputs, err = encodeOutputs(o.effects.Outputs)
		o.size, encoded = ofWrites, ofWrites
		for i := range outputs {
			encoded += len(outputs[i].Bytes)
		}
	} else {
		o.digest, outputs, o.size, err = digestEffects(o.effects)
		encoded = o.size // the canonical form includes the outputs
	}
	if err != nil {
		return fault(err)
	}
	o.written = o.size
	if err := checkEffectBytes(o.function, encoded); err != nil { // a value may encode itself to any size
		return err
	}
	if err := w.fillOutputs(ctx, o, outputs); err != nil {
		return err
	}
	for i := range o.effects.Writes {
		if write := &o.effects.Writes[i]; write.Op == functions.OpExec && !o.executes {
			o.executes = true
			if o.exec, err = write.AppendCanonical(nil); err != nil {
				return fault(err)
			}
		}
	}
	return nil
}

// fillOutputs refuses an offer whose outputs cannot become events, or would be rejected
// by the publisher for good: after the commit it would be too late. It creates the events
// only for the publisher's check, because usually another cluster wins and they are not
// needed.
func (w *Writer) fillOutputs(ctx context.Context, o *offer, outputs []functions.EncodedOutput) error {
	o.encoded = outputs
	for i := range outputs {
		if err := outputs[i].Check(o.function, o.event, i); err != nil {
			return &Error{Fault: FaultFunction, Function: o.function, Err: err}
		}
		o.size += heldEvent + len(outputs[i].Bytes)
	}
	if w.config.CheckOutput == nil || len(outputs) == 0 {
		return nil
	}
	if _, err := o.appendOutputs(nil); err != nil {
		return err
	}
	for i, e := range o.outputs {
		if err := w.config.CheckOutput(ctx, e); err != nil {
			return &Error{Fault: FaultEvent, Function: o.function, Err: fmt.Errorf("output %d, type %q: %w", i, e.Type(), err)}
		}
	}
	return nil
}

// appendOutputs appends the events of the outputs, and creates them unless they exist.
func (o *offer) appendOutputs(events []event.Event) ([]event.Event, error) {
	if o.outputs != nil {
		return append(events, o.outputs...), nil
	}
	from := len(events)
	for i := range o.encoded {
		e, err := o.encoded[i].Event(o.function, o.event, i)
		if err != nil {
			return events, &Error{Fault: FaultFunction, Function: o.function, Err: err}
		}
		events = append(events, e)
	}
	o.outputs = events[from:len(events):len(events)]
	return events, nil
}

func (w *Writer) enqueue(offers []*offer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	offers = w.divert(offers)
	w.queue = append(w.queue, offers...)
	for _, o := range offers {
		w.queued += o.size
	}
	if len(offers) > 0 {
		w.startWorker()
	}
	return nil
}

// startWorker starts a worker for the waiting offers, or later if enough workers are busy.
// Callers hold mu.
func (w *Writer) startWorker() {
	switch {
	case w.workers >= w.config.Connections:
	case w.workers < quickWorkers || w.halfFull():
		w.addWorker()
	default:
		w.startLater()
	}
}

// addWorker starts a worker. Callers hold mu.
func (w *Writer) addWorker() {
	w.workers++
	w.done.Add(1)
	go w.work()
}

// halfFull reports whether at least half a batch is waiting. Callers hold mu.
func (w *Writer) halfFull() bool {
	return len(w.queue) >= w.config.BatchEvents/2 || w.queued >= w.distance.batchBytes(w.config.BatchBytes, w.config.ClaimTimeout)/2
}

// startLater starts a worker after workerPatience, unless the offer that has waited longest
// has been taken. Callers hold mu.
func (w *Writer) startLater() {
	if w.starting {
		return
	}
	w.starting = true
	first := w.queue[0]
	time.AfterFunc(workerPatience, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.starting = false
		switch {
		case len(w.queue) == 0 || w.workers >= w.config.Connections:
		case w.queue[0] == first:
			w.addWorker()
		default:
			w.startWorker()
		}
	})
}

// work commits batches until no offer waits.
func (w *Writer) work() {
	defer w.done.Done()
	for {
		batch := w.next()
		if batch == nil {
			return
		}
		w.commit(batch)
	}
}

// next returns the waiting offers, within the bounds of a batch. If it returns
// nil the worker ends.
func (w *Writer) next() []*offer {
	most := w.distance.batchBytes(w.config.BatchBytes, w.config.ClaimTimeout)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.workers--
		return nil
	}
	if w.workers > quickWorkers && !w.halfFull() { // another worker takes it
		w.workers--
		w.startLater()
		return nil
	}
	size, n := 0, 0
	for n < len(w.queue) && n < w.config.BatchEvents && (n == 0 || size+w.queue[n].size <= most) {
		size += w.queue[n].size
		n++
	}
	w.queued -= size
	batch := slices.Clone(w.queue[:n])
	rest := copy(w.queue, w.queue[n:])
	clear(w.queue[rest:])
	w.queue = w.queue[:rest]
	return batch
}

// commit processes a batch until each of its offers is finished or set aside.
func (w *Writer) commit(batch []*offer) {
	for len(batch) > 0 {
		var later []*offer
		batch, later = sortBatch(batch)
		w.commitKeys(batch, history{})
		batch = later
	}
}

// history is what happened to a batch, or to the batch of which it is a part.
type history struct {
	outdated int  // consecutive attempts in which the schema had changed
	blocked  bool // it timed out waiting for another session's lock
	failed   int  // how often applying its effects failed
	timedOut bool // its statements timed out
}

// commitKeys does the same for offers that are sorted by key, with each key once.
//
// If a batch fails and one event may be the cause, the batch is divided, so that the
// others are committed promptly and that event is alone: after the first failure if it is
// certain that an event is the cause, after the second if it may be an outage. An event
// that fails alone is set aside.
func (w *Writer) commitKeys(batch []*offer, before history) {
	since := now()
	backoff := retry.WithCappedDuration(time.Second, retry.WithJitterPercent(20, retry.NewExponential(5*time.Millisecond)))
	for len(batch) > 0 {
		batch = w.dropBad(dropAbandoned(batch))
		if len(batch) == 0 {
			return
		}
		how := try{statementTimeout: w.statementTimeout(batchPart, w.config.ClaimTimeout)}
		if before.timedOut {
			how = w.shortTry(dividedPart)
		}
		how.since, how.blocked = since, before.blocked
		left, err := w.attemptSafely(batch, how)
		if err == nil {
			return
		}
		batch = left
		var offending *offerError
		switch {
		case errors.Is(err, errOutdated) && before.outdated < maxOutdated:
			before.outdated++
			since = now()
		case errors.As(err, &offending):
			batch = slices.DeleteFunc(batch, func(o *offer) bool { return o == offending.offer })
			w.refuse(offending.offer, offending.err)
		case findRows(batch, err):
		case attributable(err) && len(batch) > 1:
			w.divide(batch, err, 2, history{})
			return
		case attributable(err) && len(batch) == 1 && !batch[0].asWritten && ordered(err):
			batch[0].asWritten = true
		case attributable(err) && len(batch) == 1:
			w.refuse(batch[0], asError(batch[0], err))
			return
		case w.ctx.Err() != nil:
			for _, o := range batch {
				o.finish(result{err: ErrClosed})
			}
			return
		case waitedInVain(err) && before.blocked && len(batch) > 1:
			// The session that holds the lock is not one of ours: its lock would be
			// released by now.
			w.commitParts(batch, 2, before)
			return
		case waitedInVain(err) && before.blocked:
			w.setAside(batch[0])
			return
		case suspicious(err) && len(batch) > 1 && timedOut(err):
			before.timedOut = true
			w.divide(batch, err, slowParts, before)
			return
		case suspicious(err) && len(batch) > 1 && before.failed >= maxFailed:
			w.divide(batch, err, 2, before)
			return
		case suspicious(err) && len(batch) == 1:
			w.isolate(batch[0], err)
			return
		default:
			before.blocked = before.blocked || waitedInVain(err)
			if suspicious(err) {
				before.failed++
			}
			wait, _ := backoff.Next()
			w.stats.retries.Add(1)
			trouble := err
			for _, o := range batch {
				o.trouble.Store(&trouble)
			}
			w.config.Logger.LogAttrs(w.ctx, slog.LevelWarn, "could not commit; retrying a batch: see err",
				slog.Int("events", len(batch)), slog.Duration("after", wait), slog.Any("err", err))
			w.sleep(wait)
			since = now()
		}
	}
}

// divide commits a batch in parts. If the failed statement belongs to some offers only, these
// come last, in a part of their own.
func (w *Writer) divide(batch []*offer, err error, parts int, before history) {
	others, involved := partition(batch, err)
	if len(others) == 0 || len(involved) == 0 {
		w.commitParts(batch, parts, before)
		return
	}
	w.commitKeys(others, before)
	w.commitKeys(involved, before)
}

// partition splits a batch into the offers to which the failed statement belongs, and the
// others.
func partition(batch []*offer, err error) (others, involved []*offer) {
	var failed *statementError
	if !errors.As(err, &failed) || !failed.effect {
		return batch, nil
	}
	for _, o := range batch {
		of := o == failed.offer
		if failed.offer == nil {
			of = slices.ContainsFunc(o.effects.Writes, func(w functions.Write) bool { return w.Op != functions.OpExec && w.Table == failed.table })
		}
		if of {
			involved = append(involved, o)
		} else {
			others = append(others, o)
		}
	}
	return others, involved
}

// commitParts divides a batch and commits its parts one after the other.
func (w *Writer) commitParts(batch []*offer, parts int, before history) {
	for part := range slices.Chunk(batch, (len(batch)+parts-1)/parts) {
		w.commitKeys(slices.Clone(part), before)
	}
}

// isolate finishes an offer that failed alone, or sets it aside if it has to be retried.
func (w *Writer) isolate(o *offer, err error) {
	if timedOut(err) { // it had only a fraction of the commit timeout
		o.timedOut = true
	} else if verdict := w.suspect(o, err); verdict != nil {
		w.refuse(o, verdict)
		return
	}
	w.badTypes.isolated(o)
	trouble := err
	o.trouble.Store(&trouble)
	w.setAside(o)
}

func (w *Writer) refuse(o *offer, err *Error) {
	if !o.detached { // otherwise the next offer is counted
		offers := int64(0)
		for t := o; t != nil; t = t.duplicate {
			offers++
		}
		o.counters.countRefused(err, offers)
	}
	o.finish(result{err: err})
}

func (w *Writer) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.ctx.Done():
	}
}

// attemptSafely converts a panic of ours to an error of the batch, which is
// divided like any other until the offer that causes the panic is alone.
func (w *Writer) attemptSafely(batch []*offer, how try) (left []*offer, err error) {
	defer func() {
		if r := recover(); r != nil {
			w.config.Logger.LogAttrs(w.ctx, slog.LevelError, "panic while committing a batch; retrying its events in smaller batches: report the stack as a bug", slog.Any("panic", r), slog.String("stack", string(debug.Stack())))
			left = slices.DeleteFunc(slices.Clone(batch), func(o *offer) bool { return o.finished.Load() })
			err = &Error{Fault: FaultFunction, Err: fmt.Errorf("panic: %v", r)}
		}
	}()
	ctx := w.ctx
	if batch[0].detached {
		ctx = w.detaching
	}
	return w.attempt(ctx, batch, how)
}

// sortBatch sorts a batch by key and links equal offers. Different offers of
// one key have to wait for a later batch, in which they lose.
func sortBatch(batch []*offer) (out, later []*offer) {
	slices.SortStableFunc(batch, func(a, b *offer) int { return bytes.Compare(a.key[:], b.key[:]) })
	out = batch[:0]
	for _, o := range batch {
		n := len(out)
		switch {
		case n == 0 || out[n-1].key != o.key:
			out = append(out, o)
		case out[n-1].digest == o.digest && out[n-1].writer == o.writer:
			o.duplicate, out[n-1].duplicate = out[n-1].duplicate, o
			out[n-1].deferred = out[n-1].deferred || o.deferred
		default:
			later = append(later, o)
		}
	}
	return out, later
}

// dropAbandoned removes offers that no caller waits for.
func dropAbandoned(batch []*offer) []*offer {
	out := make([]*offer, 0, len(batch))
	for _, o := range batch {
		if o.waited() {
			out = append(out, o)
			continue
		}
		o.finish(result{err: o.waiter.ctx.Err()})
	}
	return out
}

func (o *offer) waited() bool {
	for t := o; t != nil; t = t.duplicate {
		if t.waiter.ctx.Err() == nil {
			return true
		}
	}
	return false
}

// Close rejects new offers, waits for those in progress, and then publishes the
// outputs of committed offers and deletes them from the outbox, for as long as
// ctx allows. A relay takes over the outputs that are left in the outbox. Close
// may be called more than once.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.stopDetached()

	idle := make(chan struct{})
	go func() {
		w.done.Wait()
		close(idle)
	}()
	defer w.stop()
	select {
	case <-idle:
	case <-ctx.Done():
		w.stop()
		<-idle
		return fmt.Errorf("close sinkwriter: offers were under way: %w", ctx.Err())
	}
	w.closeDivergences(ctx)
	return w.outbox.close(ctx)
}
