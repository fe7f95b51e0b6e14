package serve

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// maxReasons bounds how many refused events of a batch are named in an answer.
const maxReasons = 32

// serveBatch commits the events of a batch, each for itself and concurrently. It
// answers 204 if all of them are committed, else the status that says most about
// trying again: 503 before 500 before 422, and one line for each refused event.
// What was committed stays so and is found when the batch comes again.
func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request, body []byte) {
	members, err := cloudevent.ReadBatch(body, rules(false))
	if err != nil {
		h.fail(w, r, withStatus(http.StatusBadRequest, fmt.Errorf("this is no valid batch of CloudEvents: %w", err)))
		return
	}
	// All of them together have the time that one has.
	ctx, cancel := context.WithTimeout(r.Context(), h.config.Deadline+h.config.CommitTimeout)
	defer cancel()

	refusals := make([]string, len(members))
	statuses := make([]int, len(members))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(len(members), h.config.MaxConcurrent) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(members)); i = next.Add(1) - 1 {
				if err := h.handleMember(ctx, members[i]); err != nil {
					statuses[i], refusals[i] = statusOf(err), err.Error()
				}
			}
		})
	}
	workers.Wait()

	worst, refused := 0, 0
	var lines []string
	for i, status := range statuses {
		if status == 0 {
			continue
		}
		worst = max(worst, status)
		if refused++; refused <= maxReasons {
			lines = append(lines, fmt.Sprintf("event %d: %d %s", i, status, refusals[i]))
		}
	}
	if refused == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if refused > maxReasons {
		lines = append(lines, fmt.Sprintf("and %d more of %d events", refused-maxReasons, len(members)))
	}
	h.refuse(w, worst, lines...)
}

// handleMember works on one event of a batch. One that is not valid is no reason
// for 400, since the batch is what was asked for, and it can be read.
func (h *Handler) handleMember(ctx context.Context, m cloudevent.Member) error {
	if m.Err != nil {
		err := withStatus(http.StatusUnprocessableEntity, fmt.Errorf("this is no valid CloudEvent: %w", m.Err))
		h.log.unreadable(ctx, err)
		return err
	}
	_, err := h.handle(ctx, m.Event)
	return err
}
