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
	errWatchEnds = errors.New("the set of streams is not watched any more")
	errRevoked   = errors.New("the stream is not in the set any more")
)

// consumers are those of the streams that are in the set.
type consumers struct {
	updating sync.Mutex // held while the set changes
	pulling  sync.WaitGroup

	mu    sync.Mutex
	known bool        // the set
	list  []*consumer // is replaced, never changed
}

// current returns the consumers of the streams that are in the set now.
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
// streams that are new in it.
func (s *Source) setStreams(ctx context.Context, streams []eventing.Stream) {
	l := &s.consumers
	l.updating.Lock()
	defer l.updating.Unlock()
	if ctx.Err() != nil {
		return // all of them end, and return what they have
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
		failures:  failurelog.New(s.cfg.Logger, s.cfg.Now, "reading a stream", slog.String("stream", stream.Name())),
		ended:     make(chan struct{}),
	}
	c.partition.Owner = c
	return c
}

// revoke ends the consumer of a stream that has left the set: it stops reading, forgets
// what is in flight without handing it back, and saves the checkpoint a last time. A
// request that is under way may still commit; the stream is not told.
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
	s.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "a stream has left the set; it is not read any more", slog.String("stream", c.stream.Name()))
}
