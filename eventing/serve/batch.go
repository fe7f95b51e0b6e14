package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// maxReasons bounds how many refused events of a batch an answer names.
const maxReasons = 32

// serveBatch computes the effects of the events of a batch, concurrently and
// independently, and commits them together. It answers 204 if all events are committed,
// otherwise the status that matters most for a retry, 503 before 500 before 422, and
// one line for each refused event. Committed events stay committed, and are lost when
// the batch is sent again. With 204 the header Tandem-Receipts has a letter for each
// event: w for won, l for lost.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, body []byte) {
	members, err := cloudevent.ReadBatch(body, rules(false))
	if err != nil {
		h.refuseUnreadable(w, r, withStatus(http.StatusBadRequest, fmt.Errorf("this is no valid batch of CloudEvents: %w", err)))
		return
	}
	ctx := r.Context()
	cs := &calls{list: make([]call, len(members))}
	list := cs.list
	for i := range members {
		c, m := &list[i], &members[i]
		if m.Err != nil {
			// Not 400: the batch itself can be read.
			c.failure = withStatus(http.StatusUnprocessableEntity, fmt.Errorf("this is no valid CloudEvent: %w", m.Err))
			continue
		}
		c.event = m.Event
		c.function, c.failure = h.findFunction(m.Event)
	}
	h.compute(ctx, cs)
	h.commitAll(ctx, cs)

	worst, refused := 0, 0
	var lines []string
	for i := range list {
		c := &list[i]
		if c.failure == nil {
			continue
		}
		if members[i].Err != nil {
			h.log.logUnreadable(ctx, c.failure)
		} else {
			h.log.logRefused(ctx, c.function, c.event, c.failure)
		}
		status := statusOf(c.failure)
		worst = max(worst, status)
		if refused++; refused <= maxReasons {
			lines = append(lines, fmt.Sprintf("event %d of %d%s: %d %s", i+1, len(list), quotedID(members[i]), status, c.failure))
		}
	}
	if refused == 0 {
		w.Header()[eventing.ReceiptsHeader] = []string{receipts(list)}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if refused > maxReasons {
		lines = append(lines, fmt.Sprintf("and %d more of %d events", refused-maxReasons, len(members)))
	}
	h.refuse(w, worst, lines...)
}

// quotedID returns the id of an event that could be read, for an error message.
func quotedID(m cloudevent.Member) string {
	if m.Err != nil {
		return ""
	}
	return fmt.Sprintf(" (id %q)", clip(m.Event.ID(), maxReason))
}

// receipts returns a letter for each event of a batch: w for won, l for lost.
func receipts(list []call) string {
	letters := make([]byte, len(list))
	for i := range list {
		letters[i] = 'l'
		if list[i].won {
			letters[i] = 'w'
		}
	}
	return string(letters)
}

// commitAll commits the effects that were computed.
func (h *Handler) commitAll(ctx context.Context, cs *calls) {
	list := cs.list
	offers := make([]sinkwriter.Offer, 0, len(list))
	offered := make([]*call, 0, len(list))
	for i := range list {
		if c := &list[i]; c.failure == nil {
			offers = append(offers, c.offer())
			offered = append(offered, c)
		}
	}
	if len(offers) == 0 {
		return
	}
	outcomes, err := h.commitOffers(ctx, cs, offers)
	for i, c := range offered {
		switch {
		case err != nil:
			c.failure = err
		case outcomes[i].Err != nil:
			c.failure = outcomes[i].Err
		default:
			c.won = outcomes[i].Receipt.Won
			h.log.logCommitted(ctx, c.function, c.event, outcomes[i].Receipt)
		}
	}
}

// commitOffers returns the committer's outcomes. An error is that of all offers: the
// committer panicked.
func (h *Handler) commitOffers(ctx context.Context, cs *calls, offers []sinkwriter.Offer) (outcomes []sinkwriter.Outcome, err error) {
	defer func() {
		if value := recover(); value != nil {
			// As it may be one of these events that does it, it counts.
			err = withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()})
		}
	}()
	h.commits.begin(ctx, &cs.commit)
	defer h.commits.end(&cs.commit)
	outcomes = h.committer.CommitAll(&cs.commit, offers)
	if len(outcomes) != len(offers) {
		return nil, errors.New("commit a batch: the committer did not return an outcome for each event")
	}
	return outcomes, nil
}
