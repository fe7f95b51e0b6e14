package source

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/sink"
)

const (
	// MaxBatch is the largest [Config.Batch].
	MaxBatch = 1000

	// minBatches is how many batches are under way at once at least: fewer, and
	// nobody computes while the database commits. With many more none would be
	// full.
	minBatches = 4

	// batchBytes bounds the events of a batch in bytes, as they are in the stream:
	// well under what a function takes in a request, a megabyte.
	batchBytes = 512 << 10

	// doubtfulBatches is how many batches in a row must be refused until none is
	// sent for a while, pauseBatches at first and up to pauseBatchesCap.
	doubtfulBatches = 3
	pauseBatches    = time.Second
	pauseBatchesCap = time.Minute
)

// batches says whether events go to the function several at a time. A sink that
// refuses batches, or has events all over that it refuses, gets them one by one.
type batches struct {
	now      func() time.Time
	failures *failurelog.Log

	mu      sync.Mutex
	refused int // in a row
	until   time.Time
	wait    backoff.Backoff
}

// paused reports whether events are to be delivered one by one for now.
func (b *batches) paused() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused > 0 && b.now().Before(b.until)
}

func (b *batches) accepted(ctx context.Context) {
	b.failures.Succeeded(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refused > 0 {
		b.refused, b.until, b.wait = 0, time.Time{}, backoff.Backoff{}
	}
}

// recordRefusal takes note of a batch that was refused.
func (b *batches) recordRefusal(ctx context.Context, a delivery.Answer) {
	b.mu.Lock()
	b.refused++
	pause := false
	switch a.Status {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented:
		pause = true
	}
	if pause = pause || b.refused >= doubtfulBatches; pause && !b.now().Before(b.until) {
		b.until = b.now().Add(b.wait.Delay(pauseBatches, pauseBatchesCap, 0))
	}
	b.mu.Unlock()
	if pause {
		b.failures.Failed(ctx, &sink.StatusError{Code: a.Status})
	}
}

// batchesAtOnce is how many batches are under way at once.
func (c Config) batchesAtOnce() int {
	if c.Batch < 2 {
		return 0
	}
	return max(minBatches, (c.InFlight+c.Batch-1)/c.Batch)
}

// atOnce is how many events are under way at once.
func (c Config) atOnce() int {
	return max(c.InFlight, c.batchesAtOnce()*c.Batch)
}

// deliverBatch sends several messages in one request. What is said against the
// batch is said against none of its events: each is then tried alone.
func (s *Source) deliverBatch(ctx context.Context, jobs []*message) {
	if len(jobs) == 1 && !s.batches.paused() {
		s.deliver(ctx, jobs[0])
		return
	}
	if s.batches.paused() {
		s.scheduler.deliverAlone(jobs)
		return
	}
	size := 2
	for _, j := range jobs {
		size += j.size - messageOverhead + len(`,"datacontenttype":"","specversion":"1.0",`)
	}
	body := append(make([]byte, 0, size+size/8), '[')
	together := jobs[:0]
	var alone []*message
	for _, j := range jobs {
		if j.table.abandoned() {
			j.table.remove(j)
			s.scheduler.finish(j, false)
			continue
		}
		longer, ok := s.delivery.AppendMember(body, j.delivery.Event)
		if !ok {
			alone = append(alone, j)
			continue
		}
		body = append(longer, ',')
		together = append(together, j)
	}
	s.scheduler.deliverAlone(alone)
	if len(together) == 0 {
		return
	}
	body[len(body)-1] = ']'
	s.settleBatch(ctx, together, s.delivery.SendBatch(ctx, body))
}

// settleBatch sees to what came of a batch.
func (s *Source) settleBatch(ctx context.Context, jobs []*message, a delivery.Answer) {
	switch {
	case a.Outcome == delivery.Accepted:
		s.batches.accepted(ctx)
		s.cfg.Metrics.settledTogether(ctx, jobs, a.Receipt, s.cfg.Now())
		for _, j := range jobs {
			s.acknowledge(ctx, j)
		}
		return
	case ctx.Err() != nil:
		for _, j := range jobs {
			s.nak(ctx, j, 0)
		}
		return
	}
	for _, j := range jobs {
		j.delivery.Alone = true
	}
	if away := a.Status == 0 || a.Status > http.StatusInternalServerError || a.Status == http.StatusTooManyRequests; !away || a.Status == http.StatusNotImplemented {
		s.batches.recordRefusal(ctx, a)
		s.scheduler.deliverAlone(jobs)
		return
	}
	// The function is away, or one of these makes it so.
	for _, j := range jobs {
		s.scheduler.retryLater(j, s.delivery.BatchBackoff(j.delivery, a))
	}
}
