package ingest

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	// overhead is the memory of a request in addition to its body, in bytes.
	overhead = 16 << 10

	// smallBody is the maximum size of a small body, in bytes. Large ones leave a
	// quarter of the memory to small ones.
	smallBody = 64 << 10

	// slowAfter is how long a body may take to arrive while other requests wait for
	// memory.
	slowAfter = time.Second

	// evictInterval is the time between searches of a waiting request for slow bodies.
	evictInterval = 100 * time.Millisecond

	// maxWaiting bounds the requests that wait for memory.
	maxWaiting = 512
)

// eventCost returns the memory for a request with one event whose body has this size:
// for the body, and for its decoded form.
func eventCost(body int64) int64 { return 2*body + overhead }

// budget bounds the memory of the requests that are being accepted. It is safe for
// concurrent use.
type budget struct {
	size int64
	now  func() time.Time

	mu      sync.Mutex
	free    int64
	waiting [2][]*share // in the order of their arrival: small ones, and large ones
	reading []*share    // that may be evicted, in the order in which reading began
}

func newBudget(size int64, now func() time.Time) *budget {
	return &budget{size: size, now: now, free: size}
}

// share is the memory of one request.
type share struct {
	budget *budget
	bytes  int64
	since  time.Time     // when reading began
	evict  func()        // aborts reading
	taken  chan struct{} // closed when the share has its memory

	// Guarded by the lock of the budget.
	evicted bool
	holders int
}

// used returns how many bytes are in use.
func (b *budget) used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size - b.free
}

// acquire waits for the memory of a request, at most bytes. The body is being read from
// then on; evict aborts that if the body is slow and others wait. It reports false if ctx
// ended first, or too many requests wait already.
func (b *budget) acquire(ctx context.Context, bytes int64, small bool, evict func()) (*share, bool) {
	class := 0
	if !small {
		class = 1
	}
	// A request that needs more than the budget may have all of it.
	bytes = min(bytes, b.size-b.reserved(class))
	s := &share{budget: b, bytes: bytes, evict: evict, taken: make(chan struct{}), holders: 1}
	b.mu.Lock()
	if len(b.waiting[0])+len(b.waiting[1]) >= maxWaiting {
		b.mu.Unlock()
		return nil, false
	}
	b.waiting[class] = append(b.waiting[class], s)
	b.admit()
	b.mu.Unlock()

	select {
	case <-s.taken: // immediately, as usual
		return s, true
	default:
	}
	tick := time.NewTicker(evictInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.taken:
			return s, true
		case <-tick.C:
			b.evictSlow()
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			i := slices.Index(b.waiting[class], s)
			if i < 0 {
				return s, true
			}
			b.waiting[class] = slices.Delete(b.waiting[class], i, i+1)
			b.admit() // it may have been the first in the queue
			return nil, false
		}
	}
}

// admit assigns free memory to waiting requests. The caller holds the lock.
func (b *budget) admit() {
	for class := range b.waiting {
		for len(b.waiting[class]) > 0 {
			s := b.waiting[class][0]
			if s.bytes > b.free-b.reserved(class) {
				break
			}
			b.waiting[class] = slices.Delete(b.waiting[class], 0, 1)
			b.free -= s.bytes
			s.since = b.now()
			b.reading = append(b.reading, s)
			close(s.taken)
		}
	}
}

// reserved returns how much memory requests of a class leave to the other class.
func (b *budget) reserved(class int) int64 { return int64(class) * b.size / 4 }

// evictSlow aborts reading slow bodies, the oldest first, until there is memory for the
// requests that wait.
func (b *budget) evictSlow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	missing := -b.free
	for class, waiting := range b.waiting {
		for _, s := range waiting {
			missing += s.bytes
		}
		if len(waiting) > 0 {
			missing += b.reserved(class)
		}
	}
	for _, s := range b.reading {
		if missing <= 0 || b.now().Sub(s.since) < slowAfter {
			return
		}
		if !s.evicted {
			s.evicted = true
			s.evict()
		}
		missing -= s.bytes
	}
}

// read ends reading: the request keeps the memory for its actual size. It reports
// whether the request may continue, which it may not if it was evicted.
func (s *share) read(bytes int64) bool {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = slices.DeleteFunc(b.reading, func(other *share) bool { return other == s })
	if bytes < s.bytes {
		b.free += s.bytes - bytes
		s.bytes = bytes
		b.admit()
	}
	return !s.evicted
}

// retain adds a holder, which also has to release the share.
func (s *share) retain() {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.holders++
}

// release frees the memory when the last holder has released it.
func (s *share) release() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.holders--; s.holders == 0 {
		b.free += s.bytes
		b.admit()
	}
}
