package eventing

import (
	"context"
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

// outage makes few log lines of many failures of one thing: one when it begins,
// one a minute while it lasts, one when it is over.
type outage struct {
	logger *slog.Logger
	now    func() time.Time
	what   slog.Attr // what it is that fails

	healthy atomic.Bool // spares the lock while all is well

	mu       sync.Mutex
	worked   bool // ever
	since    time.Time
	reported time.Time
	err      error // of the latest failure, once reported
}

// failed takes note of a failure.
func (o *outage) failed(ctx context.Context, err error) {
	now := o.now()
	o.mu.Lock()
	o.healthy.Store(false)
	if o.since.IsZero() {
		o.since = now
	}
	lasting := now.Sub(o.since)
	level := slog.LevelWarn
	switch {
	case o.reported.IsZero() && o.worked && lasting < outageGrace:
		o.mu.Unlock()
		return
	case !o.reported.IsZero() && now.Sub(o.reported) < outageRepeat:
		o.err = err
		o.mu.Unlock()
		return
	case !o.reported.IsZero():
		level = slog.LevelError
	}
	o.reported, o.err = now, err
	o.mu.Unlock()

	o.logger.LogAttrs(ctx, level, "it fails and is tried again until it works", o.what,
		slog.Any("err", err), slog.Duration("lasting", lasting))
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
		o.logger.LogAttrs(ctx, slog.LevelInfo, "it works again", o.what,
			slog.Duration("lasted", o.now().Sub(since)))
	}
}

// current is the failure that people were told of and that is not over, or nil.
func (o *outage) current() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
