package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"golang.org/x/time/rate"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

const (
	// maxChunk and chunksAhead bound what is published and not acknowledged
	// yet: enough to keep the server busy, not so much that it refuses.
	maxChunk    = 256
	chunksAhead = 8

	// smooth is how long the events of one chunk may be early.
	smooth = 5 * time.Millisecond

	publishTimeout = 5 * time.Second
	retryPause     = 100 * time.Millisecond
	saveInterval   = 250 * time.Millisecond

	// LastSaveTimeout bounds how long [Feed.Run] goes on after its context ended.
	LastSaveTimeout = 100 * time.Millisecond
)

// Config sets up a [Feed]. A field left at zero takes the default named beside it.
type Config struct {
	// Rate is how many events a second are published, evenly. 0, the default,
	// is as fast as it goes.
	Rate float64

	// Save, if set, is told several times a second how many events were read
	// and are acknowledged without a gap, bad ones included. If it fails it is
	// told again.
	Save func(ctx context.Context, position int) error

	// Skipped, if set, is told about each event that is left out since it is
	// none or too large: a [*LineError], or what the stream says. May be called
	// concurrently.
	Skipped func(error)
}

// Feed publishes events. Its counters may be read at any time.
type Feed struct {
	publisher eventing.Publisher
	cfg       Config

	published, skipped atomic.Int64
	complete           atomic.Bool
	trouble            atomic.Pointer[error]
}

// New makes a feed to a stream.
func New(publisher eventing.Publisher, cfg Config) *Feed {
	return &Feed{publisher: publisher, cfg: cfg}
}

// Published counts the events that the stream has acknowledged.
func (f *Feed) Published() int64 { return f.published.Load() }

// Skipped counts what was left out since it is no event, or one too large.
func (f *Feed) Skipped() int64 { return f.skipped.Load() }

// Complete says whether all that was to be published is acknowledged.
func (f *Feed) Complete() bool { return f.complete.Load() }

// Trouble is why the stream does not take events now, as far as one can tell; nil
// if it does.
func (f *Feed) Trouble() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// chunk is some events that are published together.
type chunk struct {
	events []event.Event
	end    int           // position after it
	done   chan struct{} // closed when they are acknowledged
}

// acknowledged reports whether all its events are.
func (c chunk) acknowledged() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Run publishes all events, which begin at position, and returns when the stream
// has acknowledged them. While the stream cannot be reached it goes on trying. The
// error is ctx's or that of events.
func (f *Feed) Run(ctx context.Context, position int, events iter.Seq2[event.Event, error]) error {
	ctx, cancel := context.WithCancel(ctx)
	ahead := make(chan chunk, chunksAhead)
	saved := make(chan error, 1)
	go func() { saved <- f.follow(ctx, position, ahead) }()

	err := f.publishAll(ctx, position, events, ahead)
	close(ahead)
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-saved)
	cancel()
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	f.complete.Store(true)
	return nil
}

// item is an event, or what came in place of one.
type item struct {
	event event.Event
	err   error
}

// read hands on events as they come. It may outlive its context for as long as
// the next event takes to come, as from a terminal.
func read(ctx context.Context, events iter.Seq2[event.Event, error]) <-chan item {
	items := make(chan item, 2*maxChunk)
	go func() {
		defer close(items)
		for e, err := range events {
			select {
			case items <- item{event: e, err: err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return items
}

func (f *Feed) publishAll(ctx context.Context, position int, events iter.Seq2[event.Event, error], ahead chan<- chunk) error {
	size, limiter := f.pace()
	items := read(ctx, events)
	for {
		var first item
		var more bool
		select {
		case first, more = <-items:
		case <-ctx.Done(): // the next event may never come
		}
		if !more {
			return context.Cause(ctx)
		}
		next := chunk{end: position}
		if err := f.add(&next, first); err != nil {
			return err
		}
		// Take what is there already, but no more: whoever types events must
		// not have to fill a chunk.
		for there := true; there && len(next.events) < size; {
			select {
			case it, more := <-items:
				if there = more; !more {
					break
				}
				if err := f.add(&next, it); err != nil {
					return err
				}
			default:
				there = false
			}
		}
		if err := f.send(ctx, limiter, next, ahead); err != nil {
			return err
		}
		position = next.end
	}
}

func (f *Feed) add(c *chunk, it item) error {
	var bad *LineError
	switch {
	case errors.As(it.err, &bad):
		f.skip(it.err)
	case it.err != nil:
		return it.err
	default:
		c.events = append(c.events, it.event)
	}
	c.end++
	return nil
}

// pace gives how many events are published together and what holds them back.
func (f *Feed) pace() (int, *rate.Limiter) {
	if f.cfg.Rate <= 0 {
		return maxChunk, rate.NewLimiter(rate.Inf, maxChunk)
	}
	size := int(math.Ceil(f.cfg.Rate * smooth.Seconds()))
	size = max(1, min(size, maxChunk))
	return size, rate.NewLimiter(rate.Limit(f.cfg.Rate), size)
}

func (f *Feed) send(ctx context.Context, limiter *rate.Limiter, c chunk, ahead chan<- chunk) error {
	if err := limiter.WaitN(ctx, len(c.events)); err != nil {
		return err
	}
	c.done = make(chan struct{})
	select {
	case ahead <- c:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	go func() {
		if f.publish(ctx, c.events) {
			close(c.done)
		}
	}()
	return nil
}

// publish tries until all events are acknowledged or left out; false if ctx ended
// before.
func (f *Feed) publish(ctx context.Context, events []event.Event) bool {
	for {
		attempt, cancel := context.WithTimeout(ctx, publishTimeout)
		err := f.publisher.Publish(attempt, events)
		cancel()
		if err == nil {
			f.published.Add(int64(len(events)))
			f.trouble.Store(nil)
			return true
		}
		if events = f.unpublished(events, err); len(events) == 0 {
			return true
		}
		f.trouble.Store(&err)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return false
		}
	}
}

// unpublished returns the events that are to be published again after err, and skips those
// that never will be.
func (f *Feed) unpublished(events []event.Event, err error) []event.Event {
	var rest []event.Event
	for i, reason := range contract.ReasonsOf(err, len(events)) {
		switch {
		case reason == nil:
			f.published.Add(1)
		case errors.As(reason, new(*eventing.Rejection)):
			f.skip(fmt.Errorf("event %s of %s: %w", events[i].ID(), events[i].Source(), reason))
		default:
			rest = append(rest, events[i])
		}
	}
	return rest
}

func (f *Feed) skip(err error) {
	f.skipped.Add(1)
	if f.cfg.Skipped != nil {
		f.cfg.Skipped(err)
	}
}

// follow waits for the chunks in their order, and saves how far they are
// acknowledged without a gap.
func (f *Feed) follow(ctx context.Context, position int, ahead <-chan chunk) error {
	save := func(ctx context.Context) error {
		if f.cfg.Save == nil {
			return nil
		}
		return f.cfg.Save(ctx, position)
	}
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	saved := position
	var c chunk // the one that is waited for; done is nil while there is none
	for more := true; ctx.Err() == nil && (more || c.done != nil || position != saved); {
		next := ahead
		if !more || c.done != nil {
			next = nil
		}
		select {
		case c, more = <-next:
		case <-c.done:
			position, c.done = c.end, nil
		case <-tick.C:
			if position != saved && save(ctx) == nil {
				saved = position
			}
		case <-ctx.Done():
		}
	}
	if ctx.Err() == nil {
		return nil
	}
	for more := true; more && (c.done == nil || c.acknowledged()); {
		if c.done != nil {
			position = c.end
		}
		c, more = <-ahead // Run closes it
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), LastSaveTimeout)
	defer cancel()
	return errors.Join(context.Cause(ctx), save(last))
}
