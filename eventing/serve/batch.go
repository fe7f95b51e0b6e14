package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// maxReasons bounds how many refused events of a batch an answer names.
const maxReasons = 32

// serveBatch computes the effects of the events of a batch, concurrently and
// independently, and commits them together. Committed events stay committed, and are
// lost when the batch is sent again.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, body []byte) {
	members, err := cloudevent.ReadBatch(body, rules(false))
	if err != nil {
		h.refuseUnreadable(w, r, withStatus(http.StatusBadRequest, fmt.Errorf("this is no valid batch of CloudEvents: %w", err)))
		return
	}
	if len(members) > h.config.MaxBatch {
		h.refuseUnreadable(w, r, withStatus(http.StatusRequestEntityTooLarge,
			fmt.Errorf("the batch has %d events: want at most %d in a request (TANDEM_MAX_BATCH)", len(members), h.config.MaxBatch)))
		return
	}
	ctx := r.Context()
	cs := &calls{list: make([]call, len(members))}
	for i := range members {
		c, m := &cs.list[i], &members[i]
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
	for i := range cs.list {
		switch c := &cs.list[i]; {
		case c.failure == nil:
		case members[i].Err != nil:
			h.log.logUnreadable(ctx, c.failure)
		default:
			h.log.logRefused(ctx, c.function, c.event, c.failure)
		}
	}
	if acceptsOutcomes(r.Header) {
		h.answerOutcomes(w, cs.list)
	} else {
		h.answerText(w, cs.list, members)
	}
}

// acceptsOutcomes reports whether a sender asks for an outcome for each event.
func acceptsOutcomes(header http.Header) bool {
	for _, value := range header["Accept"] {
		for mediaType := range strings.SplitSeq(value, ",") {
			mediaType, _, _ = strings.Cut(mediaType, ";")
			if strings.EqualFold(strings.TrimSpace(mediaType), outcome.OutcomesType) {
				return true
			}
		}
	}
	return false
}

// answerOutcomes answers with an outcome for each event, and with 200 or the status that
// matters most for a retry.
func (h *Handler) answerOutcomes(w http.ResponseWriter, list []call) {
	outcomes := make([]outcome.Outcome, len(list))
	status := http.StatusOK
	for i := range list {
		if c := &list[i]; c.failure == nil {
			outcomes[i] = committedOutcome(c.receipt)
		} else {
			outcomes[i] = h.outcomeOf(c.failure)
			status = max(status, outcomes[i].Status)
		}
	}
	body := outcome.Append(make([]byte, 0, 96*len(list)+2), outcomes)
	header := w.Header()
	header["Content-Type"] = []string{outcome.OutcomesType}
	if status == http.StatusServiceUnavailable {
		header["Retry-After"] = h.retry
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the sender may have gone
}

// answerText answers 204 if all events are committed, with a letter for each in the
// header Tandem-Receipts: w for won, l for lost. Otherwise it answers with the status
// that matters most for a retry, 503 before 500 before 422, and one line for each
// refused event.
func (h *Handler) answerText(w http.ResponseWriter, list []call, members []cloudevent.Member) {
	worst, refused := 0, 0
	var lines []string
	for i := range list {
		c := &list[i]
		if c.failure == nil {
			continue
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
		if list[i].receipt.Won {
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
			c.receipt = outcomes[i].Receipt
			h.log.logCommitted(ctx, c.function, c.event, c.receipt)
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
