package sink

import (
	"sync"
	"time"
)

const (
	// hangAfter is how long a request may be without an answer until it hangs, if others of
	// its type were not answered in more than a part in slowFactor of that.
	hangAfter  = time.Second
	slowFactor = 2

	// Of the places, types that fail take at most a part in failingShare, and types of which
	// nothing is known yet a part in unknownShare. So some are left for the others.
	failingShare = 4
	unknownShare = 2

	// hangingFactor is for how many times as many requests as there are places a request
	// that hangs frees its place.
	hangingFactor = 2

	// maxTypes bounds the types that are known.
	maxTypes = 10_000
)

// standing is what is known of a type.
type standing uint8

const (
	unknown standing = iota
	proven           // the latest event of it was accepted
	failing          // the latest request of it hangs, or all events of it in a call failed
)

// typeState is what is known of an event type.
type typeState struct {
	standing
	underWay int           // requests
	accepted time.Time     // when an event was, last
	took     time.Duration // the request of that
}

// places are the requests that may be under way at once. Types that hang take a share of them
// only. It is safe for concurrent use.
type places struct {
	now func() time.Time

	mu      sync.Mutex
	limit   int
	taken   int
	by      [failing + 1]int // taken, by the standing of the type when they were
	hanging int              // requests that have given back their places
	types   map[string]*typeState
	changed chan struct{} // is closed when a place was given back, or a type is proven
}

func newPlaces(limit int, now func() time.Time) *places {
	return &places{now: now, limit: limit, types: map[string]*typeState{}, changed: make(chan struct{})}
}

// place is that of a request.
type place struct {
	all   *places
	of    *typeState
	as    standing
	began time.Time
	timer *time.Timer
	ended bool
	hangs bool // and was given back
}

// of returns what is known of a type. It is called with the lock held.
func (p *places) of(eventType string) *typeState {
	t := p.types[eventType]
	if t == nil {
		if len(p.types) >= maxTypes {
			clear(p.types)
		}
		t = &typeState{}
		p.types[eventType] = t
	}
	return t
}

// fails reports whether a type fails.
func (p *places) fails(eventType string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of(eventType).standing == failing
}

// wait returns a channel that is closed when a place may have become free.
func (p *places) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// take takes a place for a request with events of a type, of which the caller has some under
// way; nil if there is none now. One call at a time sends events of a type that fails.
func (p *places) take(eventType string, underWay int) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.of(eventType)
	if t.standing == failing && t.underWay > underWay {
		return nil
	}
	most := [...]int{unknown: max(1, p.limit/unknownShare), proven: p.limit, failing: max(1, p.limit/failingShare)}
	if p.taken >= p.limit || p.by[t.standing] >= most[t.standing] {
		return nil
	}
	p.taken++
	p.by[t.standing]++
	t.underWay++
	l := &place{all: p, of: t, as: t.standing, began: p.now()}
	l.timer = time.AfterFunc(max(hangAfter, slowFactor*t.took), l.hang)
	return l
}

// free frees a place. It is called with the lock held.
func (p *places) free(as standing) {
	p.taken--
	p.by[as]--
	p.notify()
}

func (p *places) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// hang notes that a request has no answer yet. It frees its place, so that others have it,
// unless its type is known to fail or too many hang.
func (l *place) hang() {
	p := l.all
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.ended {
		return
	}
	if !l.of.accepted.After(l.began) {
		l.of.standing = failing
	}
	if l.as != failing && p.hanging < hangingFactor*p.limit {
		l.hangs = true
		p.hanging++
		p.free(l.as)
	}
}

// end frees the place after the request, and notes whether an event of it was accepted.
func (l *place) end(accepted bool) {
	l.timer.Stop()
	p := l.all
	p.mu.Lock()
	defer p.mu.Unlock()
	l.ended = true
	l.of.underWay--
	if accepted {
		now := p.now()
		l.of.standing, l.of.accepted, l.of.took = proven, now, now.Sub(l.began)
	}
	if l.hangs {
		p.hanging--
		p.notify()
		return
	}
	p.free(l.as)
}

// failed notes that all events of a type in a call failed.
func (p *places) failed(eventType string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(eventType).standing = failing
}
