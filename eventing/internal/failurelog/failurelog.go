// Package failurelog rate-limits the log lines of a repeated failure.
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
	// grace is how long an attempt that has succeeded before must fail without a
	// success in between before it is logged. With a shorter one, each failure of one
	// event that always fails among others would be logged; with a longer one, an
	// outage is reported late.
	grace = time.Second

	// repeat is the time between log lines about a continuing failure.
	repeat = time.Minute
)

// ErrReported is wrapped by an error whose cause is already in the log. A Log counts
// the failure and does not log it again.
var ErrReported = errors.New("reported")

// Log rate-limits a repeated failure: one line when it starts (warn), one per minute
// while it lasts (error), one on recovery (info). It is safe for concurrent use.
type Log struct {
	logger *slog.Logger
	now    func() time.Time
	doing  []slog.Attr // name the attempt

	healthy atomic.Bool // avoids the lock while there are no failures

	mu       sync.Mutex
	worked   bool // at least once
	since    time.Time
	reported time.Time
	err      error // of the latest failure, after the grace
}

// New returns a Log. Doing describes the attempt and, after a semicolon, the consequence
// of its failure, for example "saving the checkpoint; a restart re-reads the stream";
// attrs are added to each line. Now is the clock for rates and durations.
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

// record reports whether to log the failure, at which level, and how long there was no
// success.
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

// Succeeded records a successful attempt.
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

// Current returns the current failure after its grace, or nil.
func (l *Log) Current() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
