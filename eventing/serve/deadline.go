package serve

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a time, or when its work is done. It does not end
// when the sender disconnects: work that has begun is finished, so that the sender's
// retry finds it committed.
type deadline struct {
	values context.Context // the request's
	at     time.Time
	call   *call // is abandoned at the deadline; nil for a commit

	mu   sync.Mutex
	done chan struct{} // nil until Done is called
	err  error

	before, after *deadline // in deadlines
}

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
		if d.err != nil {
			close(d.done)
		}
	}
	return d.done
}

// Value implements [context.Context].
func (d *deadline) Value(key any) any { return d.values.Value(key) }

// Err implements [context.Context].
func (d *deadline) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// end ends the context; only the first reason counts.
func (d *deadline) end(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		if d.done != nil {
			close(d.done)
		}
	}
}

// deadlines are the running deadlines, all of one length. So they end in the order in
// which they began, and one timer, which rarely fires, is enough.
//
// With context.WithTimeout for each call and each commit, BenchmarkBinaryMode takes
// 4.59 µs of processor time per event instead of 3.89 µs (+18 % ± 6 %, p < 0.001, 10
// rounds each), and 19 allocations of 1.7 KiB instead of 10 of 1.4 KiB.
type deadlines struct {
	length time.Duration
	now    func() time.Time

	mu          sync.Mutex
	first, last *deadline
	timer       *time.Timer // nil until the first deadline begins
	timerSet    bool
}

// begin starts d.
func (ds *deadlines) begin(ctx context.Context, d *deadline) {
	d.values, d.at = ctx, ds.now().Add(ds.length)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if d.before = ds.last; ds.last == nil {
		ds.first = d
	} else {
		ds.last.after = d
	}
	ds.last = d
	switch {
	case ds.timerSet:
		return
	case ds.timer == nil:
		ds.timer = time.AfterFunc(ds.length, ds.expire)
	default:
		ds.timer.Reset(ds.length)
	}
	ds.timerSet = true
}

// end ends d before its time.
func (ds *deadlines) end(d *deadline) {
	d.end(context.Canceled)
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.remove(d)
}

// remove removes d from the list, if it is there. It is called with mu held.
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

// expire ends the deadlines that have passed, and abandons their calls.
func (ds *deadlines) expire() {
	for _, d := range ds.removePast() {
		d.end(context.DeadlineExceeded)
		if d.call != nil {
			d.call.abandon()
		}
	}
}

// removePast removes and returns the deadlines that have passed, and sets the timer for
// the next one.
func (ds *deadlines) removePast() []*deadline {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	var past []*deadline
	now := ds.now()
	for d := ds.first; d != nil && !d.at.After(now); d = ds.first {
		ds.remove(d)
		past = append(past, d)
	}
	if ds.timerSet = ds.first != nil; ds.timerSet {
		ds.timer.Reset(ds.first.at.Sub(now))
	}
	return past
}
