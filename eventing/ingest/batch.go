package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// blockSize is how many events of a batch are decoded and stored at a time. A batch of
// many small events takes several times its body when all are decoded.
const blockSize = 512

// result is what became of the events of a request.
type result struct {
	single bool // not a batch
	stored int
	failed []failure
	err    error // of an event that the stream does not store now
}

// failure is an event that is not stored. Its JSON is an element of the answer to a batch.
type failure struct {
	Index  int    `json:"index"`            // in the batch, from 0 on
	Source string `json:"source,omitempty"` // missing if it cannot be read
	ID     string `json:"id,omitempty"`
	Status int    `json:"status"` // that a request with this event alone is answered with
	Error  string `json:"error"`

	reason string // in metrics
}

// status returns the status of the answer: that which matters most for a retry.
func (r *result) status() int {
	status := http.StatusAccepted
	for _, f := range r.failed {
		status = max(status, f.Status)
	}
	return status
}

// storeBatch stores the events of a batch. Each that can be stored is, whatever becomes of
// the others.
func (h *Handler) storeBatch(ctx context.Context, body []byte) (*result, error) {
	members, err := cloudevent.Members(body, rules())
	if err != nil {
		return nil, fmt.Errorf("no batch of CloudEvents: %w", err)
	}
	all := &result{}
	block := make([]event.Event, 0, blockSize)
	indexes := make([]int, 0, blockSize)
	flush := func() {
		if len(block) > 0 {
			h.storeEvents(ctx, block, indexes, all)
		}
		clear(block)
		block, indexes = block[:0], indexes[:0]
	}
	index := 0
	for m := range members {
		if m.Err != nil {
			all.failed = append(all.failed, failure{Index: index, Status: http.StatusBadRequest, Error: oneLine("no CloudEvent: " + m.Err.Error()), reason: reasonInvalid})
		} else {
			block, indexes = append(block, m.Event), append(indexes, index)
		}
		if index++; len(block) == blockSize {
			flush()
		}
	}
	flush()
	return all, nil
}

// answerBatch answers a batch of which some events are not stored: the status is the
// highest of those events, and the body names them.
func (h *Handler) answerBatch(w http.ResponseWriter, all *result) {
	status := all.status()
	h.setRetryAfter(w, status)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// One by one, as there may be thousands.
	_, _ = fmt.Fprintf(w, `{"stored":%d,"failed":[`, all.stored)
	for i, f := range all.failed {
		text, err := json.Marshal(f)
		if err != nil {
			continue // it has only text and numbers
		}
		if i > 0 {
			text = append([]byte{','}, text...)
		}
		if _, err := w.Write(text); err != nil {
			return // the sender has gone
		}
	}
	_, _ = w.Write([]byte("]}\n"))
}
