package sink

import (
	"sync"
	"time"
)

const (
	// hangAfter is the time without an answer after which a request hangs, if others of its
	// type were answered within hangAfter divided by slowFactor.
	hangAfter  = time.Second
	slowFactor = 2

	// Types that fail take at most one of failingShare places, and types of which nothing is
	// known yet one of unknownShare, so that some places are left for other types.
	failingShare = 4
	unknownShare = 2

	// hangingFactor limits the requests that hang and have freed their places, as a
	// multiple of the number of places.
	hangingFactor = 2

	// maxTypes bounds the number of known types.
	maxTypes = 10_000
)

// standing is the known state of a type.
type standing uint8

const (
	unknown standing = iota
	proven           // its latest event was accepted
	failing          // its latest request hangs, or all of its events in a call failed
)

// typeState is the known state of an event type.
type typeState struct {
	standing
	underWay int           // requests
	accepted time.Time     // the time of the latest accepted event
	took     time.Duration // the duration of its request
}

// places are the requests that may be under way at once. Types that hang can take only a part
// of them. It is safe for concurrent use.
type places struct {
	now func() time.Time

	mu      sync.Mutex
	limit   int
	taken   int
	by      [failing + 1]int // taken, by the standing of the type at that time
	hanging int              // requests that have freed their places
	types   map[string]*typeState
	changed chan struct{} // is closed when a place was freed, or a type is proven
}

func newPlaces(limit int, now func() time.Time) *places {
	return &places{now: now, limit: limit, types: map[string]*typeState{}, changed: make(chan struct{})}
}

// place is the place of a request.
type place struct {
	all   *places
	of    *typeState
	as    standing
	began time.Time
	timer *time.Timer
	ended bool
	hangs bool // and has freed its place
}

// of returns the state of a type. It is called with the lock held.
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

// wait returns a channel that is closed when a place may be free.
func (p *places) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// take takes a place for a request with events of a type, of which the caller has underWay
// requests; nil if none is free. Only one call at a time sends events of a type that fails.
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

// hang records that a request has no answer yet. It frees its place for others, unless its
// type is known to fail or too many requests hang.
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

// end frees the place after the request, and records whether an event of it was
// accepted.
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

// failed records that all events of a type in a call failed.
func (p *places) failed(eventType string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(eventType).standing = failing
}
