package serve

import (
	"context"
	"sync"
	"time"
)

// deadline is the context of calls. It is ended by whoever waits for them, who has a
// timer anyway and hears of the request's end; of a context made by the standard
// library both would cost a tenth of what it takes to serve an event.
type deadline struct {
	context.Context // the request's

	at time.Time

	mu   sync.Mutex
	done chan struct{} // nil until somebody asks for it
	err  error
}

// begin makes d end with a request, or at a time.
func (d *deadline) begin(ctx context.Context, at time.Time) { d.Context, d.at = ctx, at }

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) {
	if at, ok := d.Context.Deadline(); ok && at.Before(d.at) {
		return at, true
	}
	return d.at, true
}

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
	if d.err != nil {
		return
	}
	d.err = err
	if d.done != nil {
		close(d.done)
	}
}
