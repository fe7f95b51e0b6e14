package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
)

const (
	// healthTimeout bounds one look, so that whoever asks gets the answer before
	// it gives up.
	healthTimeout = 2 * time.Second

	// healthFresh is for how long a good answer holds for others who ask, and a
	// stored event is proof enough.
	healthFresh = time.Second

	// forgetFailed is when an event that could not be stored is not tried again:
	// it may be the event, and others go through.
	forgetFailed = time.Minute
)

// health finds out whether an event could be stored now. A stream may say that it
// is well and store nothing, as one whose disk is full or that lost its quorum a
// moment ago; only an event tells. So when storing one has failed, it is tried
// again: whoever sent it was told to do so too, and the stream knows it by source
// and id. For concurrent use.
type health struct {
	publisher eventing.Publisher
	ready     func(ctx context.Context) error
	now       func() time.Time

	mu       sync.Mutex // held while looking: one does so for all who ask
	looked   time.Time
	answered error

	note     sync.Mutex
	storedAt time.Time
	failedAt time.Time
	event    event.Event // that could not be stored; none if failedAt is zero
}

func (h *health) stored() {
	now := h.now()
	h.note.Lock()
	defer h.note.Unlock()
	h.storedAt, h.failedAt, h.event = now, time.Time{}, event.Event{}
}

func (h *health) failed(e event.Event) {
	now := h.now()
	h.note.Lock()
	defer h.note.Unlock()
	if h.failedAt.IsZero() {
		h.failedAt, h.event = now, e
	}
}

// check reports why no event could be stored.
func (h *health) check(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note.Lock()
	doubtful := h.answered != nil || !h.failedAt.IsZero()
	h.note.Unlock()
	if doubtful || h.looked.IsZero() || h.now().Sub(h.looked) >= healthFresh {
		// Not the context of who asks: the others want the answer too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
		defer cancel()
		h.answered = h.look(ctx)
		h.looked = h.now()
	}
	return h.answered
}

func (h *health) look(ctx context.Context) error {
	h.note.Lock()
	storedAt, failedAt, e := h.storedAt, h.failedAt, h.event
	h.note.Unlock()
	now := h.now()
	switch {
	case !failedAt.IsZero() && now.Sub(failedAt) < forgetFailed:
		err := h.publisher.Publish(ctx, []event.Event{e})
		if err != nil && !errors.Is(err, eventing.ErrTooLarge) {
			return err
		}
		h.stored()
		return nil
	case !storedAt.IsZero() && now.Sub(storedAt) < healthFresh:
		return nil
	}
	return h.ready(ctx)
}
