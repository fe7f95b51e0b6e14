package serve

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// receiptsHeader of a batch's 204 has a letter for each committed event, in order: w if it was
// won, l if it was lost. A sender that requests [outcome.OutcomesType] receives that instead.
const receiptsHeader = "Tandem-Receipts"

// maxReasons bounds how many rejected events of a batch an answer names.
const maxReasons = 32

// serveBatch computes the effects of the events of a batch, concurrently and
// independently, and commits them together. Committed events stay committed, and are
// lost when the batch is sent again.
//
// If the sender accepts an outcome for each event, the batch is answered when most
// events are decided, and the others are pending. Otherwise it is answered when all
// events are decided.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, body []byte) {
	members, err := cloudevent.ReadBatch(body, rules(false))
	if err != nil {
		h.refuseUnreadable(w, r, withStatus(http.StatusBadRequest, fmt.Errorf("this is not a valid batch of CloudEvents: %w", err)))
		return
	}
	if len(members) > h.config.MaxBatch {
		h.refuseUnreadable(w, r, withStatus(http.StatusRequestEntityTooLarge,
			fmt.Errorf("the batch has %d events: want at most %d in a request (TANDEM_MAX_BATCH)", len(members), h.config.MaxBatch)))
		return
	}
	early := acceptsOutcomes(r.Header)
	g := newGroup(r.Context(), h)
	g.list = make([]call, len(members))
	for i := range members {
		c, m := &g.list[i], &members[i]
		if m.Err != nil {
			// Not 400, because the batch itself is readable.
			c.err = withStatus(http.StatusUnprocessableEntity, fmt.Errorf("this is not a valid CloudEvent: %w", m.Err))
			h.log.logUnreadable(g.ctx, c.err)
			continue
		}
		c.event = m.Event
		if c.function, c.err = h.findFunction(m.Event); c.err != nil {
			h.log.logRefused(g.ctx, nil, m.Event, c.err)
		}
	}
	h.handle(g, early)
	if early {
		h.answerOutcomes(w, g)
	} else {
		h.answerText(w, g, members)
	}
}

// acceptsOutcomes reports whether a sender requests an outcome for each event.
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

// answerOutcomes answers with an outcome for each event, and with 200 or the most
// important status for a retry.
func (h *Handler) answerOutcomes(w http.ResponseWriter, g *group) {
	outcomes := make([]outcome.Outcome, len(g.list))
	status := http.StatusOK
	for i := range g.list {
		outcomes[i] = h.outcomeOf(g.resultOf(i))
		if outcomes[i].Kind != outcome.Committed {
			status = max(status, outcomes[i].Status)
		}
	}
	body := outcome.Append(make([]byte, 0, 96*len(outcomes)+2), outcomes)
	header := w.Header()
	h.draining.announce(header)
	header["Content-Type"] = []string{outcome.OutcomesType}
	if status == http.StatusServiceUnavailable {
		header["Retry-After"] = h.retry
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the sender may have disconnected
}

// answerText answers 204 if all events are committed, with a letter for each in the
// header Tandem-Receipts: w for won, l for lost. Otherwise it answers with the most
// important status for a retry, 503 before 500 before 422, and one line for each
// rejected event.
func (h *Handler) answerText(w http.ResponseWriter, g *group, members []cloudevent.Member) {
	worst, refused := 0, 0
	var lines []string
	receipts := make([]byte, len(g.list))
	for i := range g.list {
		r := g.resultOf(i)
		if r.err == nil {
			receipts[i] = 'l'
			if r.receipt.Won {
				receipts[i] = 'w'
			}
			continue
		}
		status := statusOf(r.err)
		worst = max(worst, status)
		if refused++; refused <= maxReasons {
			lines = append(lines, fmt.Sprintf("event %d of %d%s: %d %s", i+1, len(g.list), quotedID(members[i]), status, r.err))
		}
	}
	h.draining.announce(w.Header())
	if refused == 0 {
		w.Header()[receiptsHeader] = []string{string(receipts)}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if refused > maxReasons {
		lines = append(lines, fmt.Sprintf("and %d more of %d events", refused-maxReasons, len(members)))
	}
	h.refuse(w, worst, lines...)
}

// quotedID returns the id of a readable event, for an error message.
func quotedID(m cloudevent.Member) string {
	if m.Err != nil {
		return ""
	}
	return fmt.Sprintf(" (id %q)", clip(m.Event.ID(), maxReason))
}
