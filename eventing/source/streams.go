package source

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
)

var (
	errNoStreams = errors.New("the streams to read are not known yet")
	errWatchEnds = errors.New("watching the set of streams has ended")
	errRevoked   = errors.New("the stream has left the set")
)

// consumers holds the consumers of the streams in the set.
type consumers struct {
	updating sync.Mutex // held while the set changes
	pulling  sync.WaitGroup

	mu    sync.Mutex
	known bool        // list is known
	list  []*consumer // is replaced, never modified
}

// current returns the consumers of the streams that are currently in the set.
func (l *consumers) current() []*consumer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}

func (l *consumers) replace(list []*consumer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.list = true, list
}

// followStreams pulls from the streams of the set until ctx ends.
func (s *Source) followStreams(ctx context.Context) {
	wait := backoff.Backoff{Base: retryBase, Limit: retryLimit}
	for ctx.Err() == nil {
		err := s.streams.Watch(ctx, func(streams []eventing.Stream) {
			s.watching.Succeeded(ctx)
			wait.Reset()
			s.setStreams(ctx, streams)
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errWatchEnds
		}
		s.watching.Failed(ctx, err)
		backoff.Sleep(ctx, &wait)
	}
}

// setStreams ends the consumers of streams that have left the set, and starts those of
// new ones.
func (s *Source) setStreams(ctx context.Context, streams []eventing.Stream) {
	l := &s.consumers
	l.updating.Lock()
	defer l.updating.Unlock()
	if ctx.Err() != nil {
		return // all consumers end, and return their messages
	}
	has := map[string]bool{}
	for _, stream := range streams {
		has[stream.Name()] = true
	}
	var list, left, added []*consumer
	reads := map[string]bool{}
	for _, c := range l.current() {
		if name := c.stream.Name(); has[name] {
			list, reads[name] = append(list, c), true
		} else {
			left = append(left, c)
		}
	}
	for _, stream := range streams {
		if reads[stream.Name()] {
			continue
		}
		reads[stream.Name()] = true
		added = append(added, s.newConsumer(stream))
	}
	l.replace(slices.Concat(list, added))
	var leaving sync.WaitGroup
	for _, c := range left {
		leaving.Go(func() { s.revoke(ctx, c) })
	}
	for _, c := range added {
		pulling, stop := context.WithCancel(ctx)
		c.stop = stop
		l.pulling.Go(func() {
			defer close(c.ended)
			c.run(pulling)
		})
	}
	leaving.Wait()
}

// newConsumer returns the consumer of a stream.
func (s *Source) newConsumer(stream eventing.Stream) *consumer {
	c := &consumer{
		source:    s,
		stream:    stream,
		partition: s.table.AddPartition(),
		failures:  failurelog.New(s.cfg.Logger, s.cfg.Now, "reading a stream; its messages wait", slog.String("stream", stream.Name())),
		ended:     make(chan struct{}),
	}
	c.partition.Owner = c
	return c
}

// revoke ends the consumer of a stream that has left the set: it stops reading, forgets
// the messages in flight without returning them, and saves the checkpoint a last time.
// A request under way may still commit; its events are not acknowledged to the stream.
func (s *Source) revoke(ctx context.Context, c *consumer) {
	c.stop()
	<-c.ended
	s.table.RemovePartition(c.partition)
	saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSaveTimeout)
	defer cancel()
	if _, err := s.saveCheckpoint(saving, c); err != nil {
		s.saving.Failed(ctx, err)
	}
	c.closed(errRevoked)
	s.cfg.Metrics.left(c.stream.Name())
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "a stream has left the set; reading it has ended", slog.String("stream", c.stream.Name()))
}
