package serve

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a time, or when what it is for is done. It does
// not end because the sender goes: what was begun is finished, and found done when he
// comes again.
type deadline struct {
	values context.Context // the request's
	at     time.Time
	done   chan struct{}

	mu  sync.Mutex
	err error

	before, after *deadline // in deadlines
}

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} { return d.done }

// Value implements [context.Context].
func (d *deadline) Value(key any) any { return d.values.Value(key) }

// Err implements [context.Context].
func (d *deadline) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// end ends it; the first reason counts.
func (d *deadline) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		close(d.done)
	}
}

// deadlines are those that run, all of one length. So they end in the order in which
// they began, and one timer is enough, which hardly ever fires. A timer and a context
// of the standard library for each call and each commit would cost a tenth of what it
// takes to serve an event.
type deadlines struct {
	length time.Duration
	now    func() time.Time

	mu          sync.Mutex
	first, last *deadline
	timer       *time.Timer // nil until one has begun
	set         bool        // whether timer is
}

// begin begins d.
func (ds *deadlines) begin(ctx context.Context, d *deadline) {
	d.values, d.done, d.at = ctx, make(chan struct{}), ds.now().Add(ds.length)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d.before = ds.last; ds.last == nil {
		ds.first = d
	} else {
		ds.last.after = d
	}
	ds.last = d
	switch {
	case ds.set:
		return
	case ds.timer == nil:
		ds.timer = time.AfterFunc(ds.length, ds.expire)
	default:
		ds.timer.Reset(ds.length)
	}
	ds.set = true
}

// end ends d, which need not have been reached.
func (ds *deadlines) end(d *deadline) {
	d.end(context.Canceled)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.remove(d)
}

// remove takes d out, if it is in. It is called with mu held.
func (ds *deadlines) remove(d *deadline) {
	switch {
	case d.before != nil:
		d.before.after = d.after
	case ds.first == d:
		ds.first = d.after
	default:
		return
	}
	if d.after != nil {
		d.after.before = d.before
	} else {
		ds.last = d.before
	}
	d.before, d.after = nil, nil
}

// expire ends what is past.
func (ds *deadlines) expire() {
	for _, d := range ds.past() {
		d.end(context.DeadlineExceeded)
	}
}

func (ds *deadlines) past() []*deadline {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	var past []*deadline
	now := ds.now()
	for d := ds.first; d != nil && !d.at.After(now); d = ds.first {
		ds.remove(d)
		past = append(past, d)
	}
	if ds.set = ds.first != nil; ds.set {
		ds.timer.Reset(ds.first.at.Sub(now))
	}
	return past
}
