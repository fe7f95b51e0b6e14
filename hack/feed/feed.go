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
	// maxChunk and chunksAhead bound the events that are published and not
	// acknowledged yet: enough to keep the server busy, and few enough that it
	// accepts them.
	maxChunk    = 256
	chunksAhead = 8

	// smooth is how early the events of one chunk may be published.
	smooth = 5 * time.Millisecond

	publishTimeout = 5 * time.Second
	retryPause     = 100 * time.Millisecond
	saveInterval   = 250 * time.Millisecond

	// LastSaveTimeout bounds how long [Feed.Run] continues after its context
	// ended.
	LastSaveTimeout = 100 * time.Millisecond
)

// Config configures a [Feed]. A zero value in a field selects its default.
type Config struct {
	// Rate is how many events are published per second, evenly. 0, the default,
	// is as fast as possible.
	Rate float64

	// Save, if set, is called several times a second with the number of events
	// that were read and are acknowledged without a gap, invalid ones included.
	// If it fails it is called again.
	Save func(ctx context.Context, position int) error

	// Skipped, if set, is called for each event that is skipped because it is
	// invalid or too large, with a [*LineError] or the stream's error. It may
	// be called concurrently.
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

// New returns a feed to a stream.
func New(publisher eventing.Publisher, cfg Config) *Feed {
	return &Feed{publisher: publisher, cfg: cfg}
}

// Published returns the number of events that the stream has acknowledged.
func (f *Feed) Published() int64 { return f.published.Load() }

// Skipped returns the number of events that were skipped because they are invalid
// or too large.
func (f *Feed) Skipped() int64 { return f.skipped.Load() }

// Complete reports whether all events are acknowledged.
func (f *Feed) Complete() bool { return f.complete.Load() }

// Trouble returns the reason why the stream does not accept events now, if it is
// known; nil if it does.
func (f *Feed) Trouble() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// chunk is a number of events that are published together.
type chunk struct {
	events []event.Event
	end    int           // position after it
	done   chan struct{} // closed when they are acknowledged
}

// acknowledged reports whether all its events are acknowledged.
func (c chunk) acknowledged() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Run publishes all events, which begin at position, and returns when the stream
// has acknowledged them. While the stream is unreachable it retries. It returns
// the error of ctx or of events.
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

// item is an event, or an error in place of one.
type item struct {
	event event.Event
	err   error
}

// read sends events on a channel as they are read. It may outlive its context
// until the next event is read, for example from a terminal.
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
		// Take the events that are available, without waiting for more: a user who
		// types events must not have to fill a chunk.
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

// pace returns how many events are published together, and the limiter for the
// rate.
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

// publish retries until all events are acknowledged or skipped. It returns false
// if ctx ended before.
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

// unpublished returns the events to publish again after err, and skips those that can
// never be published.
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

// follow waits for the chunks in order, and saves up to which position
// everything is acknowledged.
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
	var c chunk // the chunk to wait for; done is nil while there is none
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
