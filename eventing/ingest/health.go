package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// healthTimeout bounds a probe. It is below the guaranteed two seconds.
	healthTimeout = 1500 * time.Millisecond

	// healthFresh is how long a success counts for other probes, and a stored event as
	// evidence.
	healthFresh = time.Second

	// forgetFailed is the time after which probes stop storing an event again that
	// could not be stored: the event may be the cause, and others are stored.
	forgetFailed = time.Minute
)

// health finds out whether an event could be stored now. A stream may report that it works
// and store nothing, for example one whose disk is full or that has just lost its quorum;
// only an event proves that it does. So after an event could not be stored, a probe stores
// it again: its sender was asked to do so too, and the stream deduplicates it by source
// and id. It is safe for concurrent use.
type health struct {
	publisher eventing.Publisher
	ready     func(ctx context.Context) error
	takesType func(ctx context.Context, eventType string) (bool, error)
	now       func() time.Time

	mu       sync.Mutex
	looking  *look // the running one, for all probes that wait; nil if there is none
	looked   time.Time
	answered error

	storedAt time.Time
	failedAt time.Time
	event    event.Event // that could not be stored; invalid if failedAt is zero
}

// look is one request to the stream. Err is valid when done is closed.
type look struct {
	done chan struct{}
	err  error
}

// stored records that an event was stored.
func (h *health) stored() {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.storedAt, h.failedAt, h.event = now, time.Time{}, event.Event{}
}

// failed records that an event could not be stored.
func (h *health) failed(e event.Event) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failedAt.IsZero() {
		h.failedAt, h.event = now, e
	}
}

// check returns why no event could be stored. It returns within healthTimeout even if
// the stream does not answer: probes share a look, and each waits for it no longer than
// its own timeout.
func (h *health) check(ctx context.Context) error {
	l := h.begin(ctx)
	if l == nil {
		return nil
	}
	timer := time.NewTimer(healthTimeout)
	defer timer.Stop()
	select {
	case <-l.done:
		return l.err
	case <-timer.C:
		return fmt.Errorf("no answer from the stream within %s", healthTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// begin returns the look to wait for, or nil if a recent success is known.
func (h *health) begin(ctx context.Context) *look {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.looking != nil {
		return h.looking
	}
	doubtful := h.answered != nil || !h.failedAt.IsZero()
	if !doubtful && !h.looked.IsZero() && h.now().Sub(h.looked) < healthFresh {
		return nil
	}
	l := &look{done: make(chan struct{})}
	h.looking = l
	// The check does not use the context of one probe, because other probes need its result too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	go func() {
		defer cancel()
		err := h.look(ctx)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.looking, h.looked, h.answered = nil, h.now(), err
		l.err = err
		close(l.done)
	}()
	return l
}

func (h *health) look(ctx context.Context) error {
	h.mu.Lock()
	storedAt, failedAt, e := h.storedAt, h.failedAt, h.event
	h.mu.Unlock()
	begin := h.now()
	switch {
	case !failedAt.IsZero() && begin.Sub(failedAt) < forgetFailed:
		err := h.tryAgain(ctx, e)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errNoEvidence):
			h.forget(failedAt)
		case h.storedSince(begin):
			return nil
		default:
			return err
		}
	case !storedAt.IsZero() && begin.Sub(storedAt) < healthFresh:
		return nil
	}
	return h.ready(ctx)
}

// errNoEvidence means that an event was not stored for a reason that does not affect
// other events.
var errNoEvidence = errors.New("the stream accepts no events of this type")

// tryAgain stores the event that could not be stored.
func (h *health) tryAgain(ctx context.Context, e event.Event) error {
	if takes, err := h.takesType(ctx, e.Type()); err == nil && !takes {
		return errNoEvidence
	}
	err := h.publisher.Publish(ctx, []event.Event{e})
	var rejected *eventing.Rejection
	switch {
	case errors.As(err, &rejected):
		return errNoEvidence
	case err == nil:
		h.stored()
	}
	return err
}

// forget drops the event that could not be stored at failedAt.
func (h *health) forget(failedAt time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failedAt.Equal(failedAt) {
		h.failedAt, h.event = time.Time{}, event.Event{}
	}
}

// storedSince reports whether an event was stored after begin.
func (h *health) storedSince(begin time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.storedAt.After(begin)
}
