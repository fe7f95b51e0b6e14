// Package failurelog turns many failures of one thing into few log lines.
package failurelog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// grace is how long something that has worked before must fail without a success
	// in between until it is logged. A shorter one logs each failure of one event that
	// always fails among others that do not; a longer one is noticed late.
	grace = time.Second

	// repeat is how often a failure that goes on is logged again.
	repeat = time.Minute
)

// ErrReported is in the chain of an error whose cause is in the log already. A Log
// counts such a failure and does not log it again.
var ErrReported = errors.New("reported")

// Log rate-limits a repeated failure: one line when it starts (warn), one per minute
// while it lasts (error), one on recovery (info). It is safe for concurrent use.
type Log struct {
	logger *slog.Logger
	now    func() time.Time
	doing  []slog.Attr // names the attempt

	healthy atomic.Bool // spares the lock while all is well

	mu       sync.Mutex
	worked   bool // ever
	since    time.Time
	reported time.Time
	err      error // of the latest failure, once it counts
}

// New returns a Log. Doing is the attempt that fails or works, as "saving the checkpoint";
// attrs are added to each line. Now is the clock of rates and durations.
func New(logger *slog.Logger, now func() time.Time, doing string, attrs ...slog.Attr) *Log {
	return &Log{logger: logger, now: now, doing: append([]slog.Attr{slog.String("doing", doing)}, attrs...)}
}

// Failed records a failed attempt.
func (l *Log) Failed(ctx context.Context, err error) {
	level, lasting, report := l.record(err)
	if report {
		l.logger.LogAttrs(ctx, level, "failing; retrying", append(l.doing[:len(l.doing):len(l.doing)],
			slog.Any("err", err), slog.String("for", lasting.Round(time.Millisecond).String()))...)
	}
}

// record reports whether to log the failure, at which level, and how long there was
// no success.
func (l *Log) record(err error) (level slog.Level, lasting time.Duration, report bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.healthy.Store(false)
	if l.since.IsZero() {
		l.since = now
	}
	lasting = now.Sub(l.since)
	if l.worked && lasting < grace {
		return 0, 0, false
	}
	l.err = err
	switch {
	case errors.Is(err, ErrReported):
		return 0, 0, false
	case l.reported.IsZero():
		level = slog.LevelWarn
	case now.Sub(l.reported) < repeat:
		return 0, 0, false
	default:
		level = slog.LevelError
	}
	l.reported = now
	return level, lasting, true
}

// Succeeded records an attempt that worked.
func (l *Log) Succeeded(ctx context.Context) {
	if l.healthy.Load() {
		return
	}
	l.mu.Lock()
	since, reported := l.since, l.reported
	l.worked, l.since, l.reported, l.err = true, time.Time{}, time.Time{}, nil
	l.healthy.Store(true)
	l.mu.Unlock()

	if !reported.IsZero() {
		l.logger.LogAttrs(ctx, slog.LevelInfo, "recovered", append(l.doing[:len(l.doing):len(l.doing)],
			slog.String("after", l.now().Sub(since).Round(time.Millisecond).String()))...)
	}
}

// Current returns the failure that counts and is not over, or nil.
func (l *Log) Current() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
