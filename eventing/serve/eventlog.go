package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"golang.org/x/time/rate"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// eventLog logs the outcomes of events. It samples repeated ones.
type eventLog struct {
	log *slog.Logger

	unreadableRequests, rejected, broken, postponed sampler
}

func newEventLog(log *slog.Logger) *eventLog {
	j := &eventLog{log: log}
	for _, s := range []*sampler{&j.unreadableRequests, &j.rejected, &j.broken, &j.postponed} {
		s.sometimes = rate.Sometimes{First: 10, Interval: time.Second}
	}
	return j
}

// sampler logs the first ten entries, and then one per second.
type sampler struct {
	sometimes rate.Sometimes
	leftOut   atomic.Int64
}

func (s *sampler) logSampled(log func(leftOut slog.Attr)) {
	done := false
	s.sometimes.Do(func() {
		done = true
		log(slog.Int64("left_out", s.leftOut.Swap(0)))
	})
	if !done {
		s.leftOut.Add(1)
	}
}

// logResult logs the result of a call that was computed.
func (j *eventLog) logResult(ctx context.Context, c *call) {
	if c.err == nil {
		j.logCommitted(ctx, c.function, c.event, c.receipt)
	} else {
		j.logRefused(ctx, c.function, c.event, c.err)
	}
}

func (j *eventLog) logCommitted(ctx context.Context, f *functions.Function, e event.Event, receipt sinkwriter.Receipt) {
	if !j.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	j.log.LogAttrs(ctx, slog.LevelDebug, "event committed", slog.String("function", f.Name),
		slog.String("event_source", e.Source()), slog.String("event_id", e.ID()), slog.Bool("won", receipt.Won))
}

// logRefused logs an event that was not committed. f is nil if no function handles it.
func (j *eventLog) logRefused(ctx context.Context, f *functions.Function, e event.Event, err error) {
	name := ""
	if f != nil {
		name = f.Name
	}
	j.logRefusedFor(ctx, name, e, err)
}

// logRefusedFor logs an event that was not committed, with the name of its function.
func (j *eventLog) logRefusedFor(ctx context.Context, function string, e event.Event, err error) {
	status := statusOf(err)
	if ctx.Err() != nil && status == http.StatusServiceUnavailable {
		return // the sender has disconnected; there is no other error
	}
	attrs := []slog.Attr{
		slog.String("function", function), slog.String("event_source", clip(e.Source(), cloudevent.MaxName)),
		slog.String("event_id", clip(e.ID(), cloudevent.MaxName)), slog.Int("status", status), errAttr(err),
	}
	switch status {
	case http.StatusServiceUnavailable:
		j.postponed.logSampled(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelWarn, "event not committed; the sender retries: see err", append(attrs, leftOut)...)
		})
	case http.StatusInternalServerError:
		j.broken.logSampled(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelError, "function failed on an event; the sender retries: see err", append(append(attrs, leftOut), stackAttrs(err)...)...)
		})
	default:
		j.rejected.logSampled(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelWarn, "event rejected; the sender makes it a dead letter: see err", append(attrs, leftOut)...)
		})
	}
}

// logUnreadable logs a request from which no event could be read.
func (j *eventLog) logUnreadable(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	j.unreadableRequests.logSampled(func(leftOut slog.Attr) {
		j.log.LogAttrs(ctx, slog.LevelWarn, "request rejected; the sender must change it: see err",
			append([]slog.Attr{slog.Int("status", statusOf(err)), errAttr(err), leftOut}, stackAttrs(err)...)...)
	})
}

// errAttr returns the error's text. For a panic it is only the type of the value, which
// may hold data of the event.
func errAttr(err error) slog.Attr {
	text := err.Error()
	if panicked := (*panicError)(nil); errors.As(err, &panicked) {
		if _, known := panicked.value.(runtime.Error); !known {
			text = fmt.Sprintf("panic with a %T", panicked.value)
		}
	}
	return slog.String("err", clip(text, maxReason))
}

func stackAttrs(err error) []slog.Attr {
	if panicked := (*panicError)(nil); errors.As(err, &panicked) {
		return []slog.Attr{slog.String("stack", string(panicked.stack))}
	}
	return nil
}
