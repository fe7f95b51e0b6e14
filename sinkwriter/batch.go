package sinkwriter

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

const (
	// Not "read write": a standby rejects that with "feature not supported", not
	// with the SQLSTATE for read-only.
	beginSQL = "begin isolation level read committed"

	lockTimeoutSQL = `select pg_catalog.set_config('lock_timeout', $1, true)`

	statementTimeoutSQL = `select pg_catalog.set_config('statement_timeout', $1, true)`

	// Deferred triggers and constraints run before COMMIT, because no timeout ends a
	// COMMIT.
	constraintsSQL = `set constraints all immediate`

	// aheadAfter is after how many batches in a row that were lost entirely another cluster is
	// ahead. In a race that happens to a batch or two.
	aheadAfter = 4
)

// try holds the parameters of one attempt to commit a batch.
type try struct {
	// lockTimeout bounds the wait for a lock; zero means the claim timeout.
	lockTimeout time.Duration

	// blocked is whether the previous attempt timed out waiting for a lock.
	blocked bool

	// statementTimeout bounds each statement of a function.
	statementTimeout time.Duration

	// since is when the batch was formed. Catalog entries that were looked up
	// earlier may be outdated.
	since time.Time

	// alone is whether the batch is a single event that is tried apart from the
	// others. Its COMMIT is sent only after its effects were applied, so that an
	// attempt that ends earlier has certainly not been committed.
	alone bool
}

// attempt tries to commit a batch once. Offers with a known outcome are
// finished and removed from the batch, even if it returns an error. The offers
// that it returns have written nothing to the database, unless the outcome of
// COMMIT is unknown. The batch is sorted by key and has each key once.
func (w *Writer) attempt(ctx context.Context, batch []*offer, how try) (left []*offer, err error) {
	limit := w.config.CommitTimeout
	if how.alone {
		limit *= 2 // apply has a limit of its own
	}
	acquiring, acquired := context.WithTimeout(ctx, limit+w.connecting)
	s, err := w.acquire(acquiring)
	acquired()
	if err != nil {
		return batch, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer w.watch(s, how.patience(s.claimTimeout))()
	sound := false
	defer func() {
		switch {
		case sound:
			s.release()
		default: // after a panic: nothing may stay claimed
			s.abandon()
		}
	}()
	r := newReliance()
	left, err = w.transact(ctx, s, batch, how, r)
	if err != nil && !s.left {
		s.rollback()
		if w.outdated(ctx, s, r, how.since, err) {
			err = fmt.Errorf("%w: %w", errOutdated, err)
		}
		w.after(ctx, s, err)
	}
	sound = true
	return left, err
}

// patience returns how long an attempt waits before it looks for sessions that block it.
func (t try) patience(claimTimeout time.Duration) time.Duration {
	if t.blocked {
		return time.Millisecond
	}
	return cmp.Or(t.lockTimeout, claimTimeout) / 2
}

func (w *Writer) transact(ctx context.Context, s *session, batch []*offer, how try, r *reliance) ([]*offer, error) {
	// An offer whose COMMIT has an unknown outcome is claimed again. A witness record
	// makes the row that the claim finds as durable as a commit.
	unsure := slices.ContainsFunc(batch, func(o *offer) bool { return o.unsure })
	var err error
	if w.losing.Load() >= aheadAfter && !unsure {
		if batch, err = w.recognize(ctx, s, batch); err != nil || len(batch) == 0 {
			return batch, err
		}
	}
	p := newPlan(batch, &s.state.scratch)
	if batch, err = w.sift(ctx, s, p, batch, r, how); err != nil || len(batch) == 0 {
		return batch, err
	}
	c, err := w.claim(ctx, s, batch, unsure, how.lockTimeout)
	if err == nil && c.unclaimed {
		if batch, err = w.recognize(ctx, s, batch, step{sql: commitSQL}); err != nil {
			return batch, err
		}
		if len(batch) == 0 {
			w.losing.Add(1)
			return nil, nil
		}
		c, err = w.claim(ctx, s, batch, true, how.lockTimeout)
	}
	if err != nil {
		return batch, err
	}
	if len(c.won) > 0 {
		w.losing.Store(0)
	} else {
		w.losing.Add(1)
	}
	switch {
	case len(c.won) > 0:
		err = w.apply(ctx, s, c, p, r, how)
	case unsure:
		err = w.commitSteps(ctx, s, append(w.check(s, c), step{sql: witnessSQL}))
	default:
		err = s.run(ctx, append(w.check(s, c), step{sql: commitSQL}))
	}
	if errors.Is(err, errUnknown) {
		for _, o := range batch {
			o.unsure = true
		}
	}
	if err != nil {
		return batch, err
	}
	w.lost(ctx, s, c.lost, c.differences)
	return nil, nil
}

func newPlan(batch []*offer, memory *scratch) *plan {
	size := 0
	for _, o := range batch {
		size += o.written
	}
	return &plan{memory: memory, arena: memory.take(size), parts: make([]part, 0, len(batch))}
}

// sift encodes the effects of a batch and refuses, before anything is claimed, every offer
// that cannot be written. It returns the others. Another cluster may have committed an offer
// that is refused here, so the ledger is checked first. An offer that this writer may have
// committed stays in the batch, because only a claim waits for a transaction in progress.
func (w *Writer) sift(ctx context.Context, s *session, p *plan, batch []*offer, r *reliance, how try) ([]*offer, error) {
	var bad []*offer
	faults := map[*offer]*offerError{}
	good := make([]*offer, 0, len(batch))
	for _, o := range batch {
		err := w.lookUp(ctx, s, o, r)
		var offending *offerError
		switch {
		case err == nil:
			err = p.encode(o, r.tables, r.statements)
		case errors.As(err, &offending):
			p.parts = append(p.parts, part{offer: o, err: err})
		default:
			return batch, err
		}
		if !errors.As(err, &offending) || o.unsure {
			good = append(good, o)
			continue
		}
		bad = append(bad, o)
		faults[o] = offending
	}
	if len(bad) == 0 {
		return batch, nil
	}
	if w.catalog.changed(ctx, s, r, how.since) {
		return batch, fmt.Errorf("%w: %w", errOutdated, faults[bad[0]])
	}
	bad, err := w.recognize(ctx, s, bad)
	if err != nil {
		return batch, err
	}
	for _, o := range bad {
		w.refuse(o, faults[o].err)
	}
	return good, nil
}

// lookUp resolves the tables and statements that an offer needs, and adds them to r. Most
// of them are in memory.
func (w *Writer) lookUp(ctx context.Context, s *session, o *offer, r *reliance) error {
	for i := range o.effects.Writes {
		write := &o.effects.Writes[i]
		var err error
		if write.Op == functions.OpExec {
			err = w.lookUpStatement(ctx, s, o, &write.Statement, r)
		} else {
			err = w.lookUpTable(ctx, s, o, write.Table, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) lookUpTable(ctx context.Context, s *session, o *offer, name string, r *reliance) error {
	t := r.tables[name]
	if t == nil {
		var err error
		if t, err = w.catalog.get(ctx, s, name); err != nil {
			return err
		}
		r.tables[name] = t
	}
	if t.err != nil {
		return attribute(o, name, t.err)
	}
	return nil
}

func (w *Writer) lookUpStatement(ctx context.Context, s *session, o *offer, query *functions.Statement, r *reliance) error {
	st := r.statements[query.SQL]
	if st == nil {
		var err error
		st, err = w.catalog.statement(ctx, s, query.SQL)
		var known *Error
		var answer *statementError
		switch {
		case errors.As(err, &known):
			return attribute(o, statementName(query), known)
		case errors.As(err, &answer) && answer.effect && faultOf(answer.err) == FaultFunction:
			answer.table, answer.offer = statementName(query), o
			return &effectsError{answer}
		case err != nil:
			return err
		}
		r.statements[query.SQL] = st
	}
	if st.err != nil {
		return attribute(o, statementName(query), st.err)
	}
	return nil
}

// statementName is the name of a statement in errors, in place of a table.
func statementName(query *functions.Statement) string { return "(statement " + query.Name + ")" }

// apply sends the effects of the offers that won, their outputs and COMMIT, and
// finishes these offers. In the same round trip it looks up the winners of the
// lost offers.
func (w *Writer) apply(ctx context.Context, s *session, c *claimed, p *plan, r *reliance, how try) error {
	outputs := 0
	for _, o := range c.won {
		outputs += len(o.encoded)
	}
	events := make([]event.Event, 0, outputs)
	for _, o := range c.won {
		var err error
		if events, err = o.appendOutputs(events); err != nil {
			return attribute(o, "", err)
		}
	}
	if err := p.build(c.won, r.tables); err != nil {
		return err
	}
	checks := w.check(s, c)
	var steps []step
	if len(p.steps) > 0 {
		steps = append(steps, step{
			sql: statementTimeoutSQL, oids: []uint32{pgtype.TextOID}, params: [][]byte{[]byte(milliseconds(how.statementTimeout + s.state.trip))},
		})
		steps = append(steps, p.steps...)
		steps = append(steps, step{sql: constraintsSQL, effect: true})
		steps = append(steps, r.guard()...)
	}
	// After the effects, because all batches of a new writer wait for this row.
	steps = append(steps, w.register(s, c.won)...)
	rows, err := newRows(events, &s.state.scratch)
	if err != nil {
		return err
	}
	for _, row := range rows {
		steps = append(steps, insertStep(row))
	}
	steps = append(steps, s.endDeferred(c.won)...)
	published := w.outbox.takePublished()
	if len(published) > 0 {
		steps = append(steps, deleteStep(published))
	}
	begin := now()
	if err := w.commitEffects(ctx, s, checks, steps, how); err != nil {
		w.outbox.putBack(published)
		return err
	}
	took := now().Sub(begin)
	w.usual.add(took)
	if took > s.claimTimeout {
		w.distance.tookLong()
	}
	w.badTypes.committed(c.won)
	countWon(c.won)
	w.stats.batches.Add(1)
	for _, o := range c.won {
		s.state.writers[o.writer] = true
		o.finish(result{receipt: Receipt{Key: o.key, Won: true, Digest: o.digest}})
	}
	if len(rows) > 0 {
		w.outbox.committed(rows, begin)
	}
	return nil
}

// commitEffects sends checks, effects and COMMIT in one round trip, or in two if an event is
// tried alone.
func (w *Writer) commitEffects(ctx context.Context, s *session, checks, effects []step, how try) error {
	if !how.alone {
		return failedEffects(s.runEffects(ctx, checks, effects, func(steps []step) error { return w.commitSteps(ctx, s, steps) }))
	}
	limited, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	if err := s.runEffects(limited, checks, effects, func(steps []step) error { return s.run(limited, steps) }); err != nil {
		return failedEffects(err)
	}
	return w.commitSteps(ctx, s, nil)
}

// failedEffects returns err as that of effects.
func failedEffects(err error) error {
	if err == nil {
		return nil
	}
	return &effectsError{err}
}

// after does what an error requires before the next attempt.
func (w *Writer) after(ctx context.Context, s *session, err error) {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || raised(answer) {
		return
	}
	switch answer.Code {
	case "25006": // read-only: a new connection may find the new primary
		s.replace(ctx, w.config.ClaimTimeout)
	case "26000", "42P05": // the prepared statements of the server, or of a pooler, are not the ones that we know
		s.replace(ctx, w.config.ClaimTimeout)
	}
}

func int8Param(i int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i))
}

func int8Array(list []int64) []byte {
	slices.Sort(list)
	var b [8]byte
	return appendArray(make([]byte, 0, 20+12*len(list)), pgtype.Int8OID, len(list), func(i int) ([]byte, bool) {
		binary.BigEndian.PutUint64(b[:], uint64(list[i]))
		return b[:], false
	})
}
