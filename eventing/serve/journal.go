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
)

// journal logs what became of events, and little of what repeats.
type journal struct {
	log *slog.Logger

	bad, rejected, broken, postponed sampler
}

func newJournal(log *slog.Logger) *journal {
	j := &journal{log: log}
	for _, s := range []*sampler{&j.bad, &j.rejected, &j.broken, &j.postponed} {
		s.sometimes = rate.Sometimes{First: 10, Interval: time.Second}
	}
	return j
}

// sampler lets the first ten through, and then one a second.
type sampler struct {
	sometimes rate.Sometimes
	leftOut   atomic.Int64
}

func (s *sampler) do(log func(leftOut slog.Attr)) {
	done := false
	s.sometimes.Do(func() {
		done = true
		log(slog.Int64("left_out", s.leftOut.Swap(0)))
	})
	if !done {
		s.leftOut.Add(1)
	}
}

func (j *journal) committed(ctx context.Context, f *functions.Function, e event.Event, receipt Receipt) {
	if !j.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	j.log.LogAttrs(ctx, slog.LevelDebug, "event committed", slog.String("function", f.Name),
		slog.String("event_source", e.Source()), slog.String("event_id", e.ID()), slog.Bool("won", receipt.Won))
}

// refused is told about an event that was not committed, and of its function, if
// it has one.
func (j *journal) refused(ctx context.Context, f *functions.Function, e event.Event, err error) {
	name := ""
	if f != nil {
		name = f.Name
	}
	j.refusedFor(ctx, name, e, err)
}

// refusedFor is refused where only the function's name is known.
func (j *journal) refusedFor(ctx context.Context, function string, e event.Event, err error) {
	status := statusOf(err)
	if ctx.Err() != nil && status == http.StatusServiceUnavailable {
		return // the sender has gone, and that is all
	}
	attrs := []slog.Attr{
		slog.String("function", function), slog.String("event_source", clip(e.Source(), maxName)),
		slog.String("event_id", clip(e.ID(), maxName)), slog.Int("status", status), errAttr(err),
	}
	switch status {
	case http.StatusServiceUnavailable:
		j.postponed.do(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelWarn, "event postponed", append(attrs, leftOut)...)
		})
	case http.StatusInternalServerError:
		j.broken.do(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelError, "event failed", append(append(attrs, leftOut), stackAttrs(err)...)...)
		})
	default:
		j.rejected.do(func(leftOut slog.Attr) {
			j.log.LogAttrs(ctx, slog.LevelWarn, "event rejected", append(attrs, leftOut)...)
		})
	}
}

// unreadable is told about a request that no event could be read from.
func (j *journal) unreadable(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	j.bad.do(func(leftOut slog.Attr) {
		j.log.LogAttrs(ctx, slog.LevelWarn, "request refused",
			append([]slog.Attr{slog.Int("status", statusOf(err)), errAttr(err), leftOut}, stackAttrs(err)...)...)
	})
}

// errAttr is the error's text, but for a panic, whose value may be anything, data
// of the event too.
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
