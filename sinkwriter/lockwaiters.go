package sinkwriter

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// asideInterval is the time between two rounds of what was set aside.
const asideInterval = 100 * time.Millisecond

// waitedInVain reports whether a batch ran into its lock timeout, or its statement
// timeout. If the lock is one of a hanging writer, it is gone by the second try;
// so at the second time it is somebody else's, as an operator's open transaction.
func waitedInVain(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (answer.Code == "55P03" || answer.Code == "57014")
}

// setAside takes an offer out of the way that waits for a lock of somebody else's:
// it is tried again on its own, beside the others, until it is committed or nobody
// waits for it any more.
func (w *Writer) setAside(o *offer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lockWaiters = append(w.lockWaiters, o)
	if len(w.lockWaiters) == 1 {
		w.done.Add(1)
		go w.tryAside()
	}
}

// tryAside tries what was set aside, one after the other and again and again. Each
// waits for a part of the claim timeout only, and then lets its claim go.
func (w *Writer) tryAside() {
	defer w.done.Done()
	for {
		w.sleep(asideInterval)
		w.mu.Lock()
		waiting := slices.Clone(w.lockWaiters)
		w.mu.Unlock()
		var ended []*offer
		for _, o := range waiting {
			if w.tryOne(o) {
				ended = append(ended, o)
			}
		}
		w.mu.Lock()
		w.lockWaiters = slices.DeleteFunc(w.lockWaiters, func(o *offer) bool { return slices.Contains(ended, o) })
		none := len(w.lockWaiters) == 0
		w.mu.Unlock()
		if none {
			return
		}
	}
}

// tryOne reports whether an offer has come to its end.
func (w *Writer) tryOne(o *offer) bool {
	if len(dropAbandoned([]*offer{o})) == 0 {
		return true
	}
	left, _, err := w.attemptSafely([]*offer{o}, w.config.ClaimTimeout/4)
	var offending *offerError
	switch {
	case err == nil || len(left) == 0:
		return true
	case errors.As(err, &offending):
		w.refuse(o, offending.err)
		return true
	case attributable(err) && !o.asWritten && ordered(err):
		o.asWritten = true
		return false
	case attributable(err):
		w.refuse(o, asError(o.function, err))
		return true
	case w.ctx.Err() != nil:
		o.finish(result{err: ErrClosed})
		return true
	}
	w.stats.retries.Add(1)
	w.config.Logger.LogAttrs(w.ctx, slog.LevelDebug, "event waits for another session's lock",
		slog.String("function", o.function), slog.String("event_source", o.event.Source()), slog.String("event_id", o.event.ID()), slog.Any("err", err))
	return false
}
