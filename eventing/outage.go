package eventing

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// outageGrace is how long something that has worked before must fail
	// without a success in between until it is called an outage. Shorter, and
	// one event that always fails among others that do not is reported each
	// time; longer, and people find out late.
	outageGrace = time.Second

	// outageRepeat is how often an outage that goes on is reported again.
	outageRepeat = time.Minute
)

// ErrReported is in the chain of an error whose cause has been told to the log
// already. Who meets it does not tell it again.
var ErrReported = errors.New("reported")

// outage makes few log lines of many failures of one thing: one when it begins,
// one a minute while it lasts, one when it is over.
type outage struct {
	logger *slog.Logger
	now    func() time.Time
	doing  []slog.Attr // what it is that fails

	healthy atomic.Bool // spares the lock while all is well

	mu       sync.Mutex
	worked   bool // ever
	since    time.Time
	reported time.Time
	err      error // of the latest failure, once it counts
}

func newOutage(logger *slog.Logger, now func() time.Time, doing string, attrs ...slog.Attr) *outage {
	return &outage{logger: logger, now: now, doing: append([]slog.Attr{slog.String("doing", doing)}, attrs...)}
}

// failed takes note of a failure.
func (o *outage) failed(ctx context.Context, err error) {
	level, lasting, report := o.note(err)
	if report {
		o.logger.LogAttrs(ctx, level, "failing, trying again until it works", append(o.doing[:len(o.doing):len(o.doing)],
			slog.Any("err", err), slog.String("for", lasting.Round(time.Millisecond).String()))...)
	}
}

// note says whether the failure is to be reported, how, and for how long there
// was no success.
func (o *outage) note(err error) (level slog.Level, lasting time.Duration, report bool) {
	now := o.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.healthy.Store(false)
	if o.since.IsZero() {
		o.since = now
	}
	lasting = now.Sub(o.since)
	if o.worked && lasting < outageGrace {
		return 0, 0, false
	}
	o.err = err
	switch {
	case errors.Is(err, ErrReported):
		return 0, 0, false
	case o.reported.IsZero():
		level = slog.LevelWarn
	case now.Sub(o.reported) < outageRepeat:
		return 0, 0, false
	default:
		level = slog.LevelError
	}
	o.reported = now
	return level, lasting, true
}

// succeeded takes note of a success.
func (o *outage) succeeded(ctx context.Context) {
	if o.healthy.Load() {
		return
	}
	o.mu.Lock()
	since, reported := o.since, o.reported
	o.worked, o.since, o.reported, o.err = true, time.Time{}, time.Time{}, nil
	o.healthy.Store(true)
	o.mu.Unlock()

	if !reported.IsZero() {
		o.logger.LogAttrs(ctx, slog.LevelInfo, "works again", append(o.doing[:len(o.doing):len(o.doing)],
			slog.String("after", o.now().Sub(since).Round(time.Millisecond).String()))...)
	}
}

// current is the failure that counts and is not over, or nil.
func (o *outage) current() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// working reports whether the latest attempt succeeded.
func (o *outage) working() bool { return o.healthy.Load() }
