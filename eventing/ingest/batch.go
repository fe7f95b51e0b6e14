package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// blockSize is the number of events of a batch that are decoded and stored at a time. A
// batch of many small events takes several times its body when all are decoded.
const blockSize = 512

// maxBatch bounds the elements of a batch. A body of 1 MiB has no more events than that, but
// may have many more invalid elements.
const maxBatch = 20_000

// batchCost returns the memory for a batch with a body of this size: for the body and
// its decoded form, a block of events, and failures.
func batchCost(body int64) int64 { return 2*body + min(8*body, 768<<10) + overhead }

// storeBatch stores the events of a batch. The failure of one event does not affect the
// others.
func (h *Handler) storeBatch(ctx context.Context, body []byte) (*result, *refusal) {
	members, err := cloudevent.Members(body, rules())
	if err != nil {
		return nil, refuse(http.StatusBadRequest, reasonInvalid, "not a batch of CloudEvents: %v", err)
	}
	if exceeds(members, bytes.Count(body, []byte{','})+1) {
		return nil, refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "the batch is too large: at most %d events", maxBatch)
	}
	all := &result{batch: body}
	block := make([]event.Event, 0, blockSize)
	indexes := make([]int32, 0, blockSize)
	flush := func() {
		if len(block) > 0 {
			h.storeEvents(ctx, block, indexes, all)
		}
		clear(block)
		block, indexes = block[:0], indexes[:0]
	}
	index := int32(0)
	for m := range members {
		if m.Err != nil {
			all.failed = append(all.failed, failure{index: index, status: http.StatusBadRequest, text: unreadable})
			all.refused.invalid++
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

// exceeds reports whether a batch has more than most elements.
func exceeds(members iter.Seq[cloudevent.Member], most int) bool {
	if most <= maxBatch {
		return false
	}
	n := 0
	for range members {
		if n++; n > maxBatch {
			return true
		}
	}
	return false
}

// member is an element of the answer to a batch: an event that was not stored.
type member struct {
	Index  int32  `json:"index"`            // in the batch, from 0
	Source string `json:"source,omitempty"` // missing if it is unreadable
	ID     string `json:"id,omitempty"`
	Status int16  `json:"status"` // the status for a request with only this event
	Error  string `json:"error"`
}

// answerBatch answers a batch of which some events were not stored: the status is the
// highest of those events, and the body lists them. It decodes the batch again, one
// event after the other, because there may be thousands.
func (h *Handler) answerBatch(w http.ResponseWriter, all *result) {
	status := all.status()
	h.setRetryAfter(w, status)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	slices.SortFunc(all.failed, func(a, b failure) int { return int(a.index - b.index) })
	_, _ = fmt.Fprintf(w, `{"stored":%d,"failed":[`, all.stored)
	members, err := cloudevent.Members(all.batch, rules())
	if err != nil {
		return // the batch was readable before
	}
	index, rest := int32(0), all.failed
	for m := range members {
		if len(rest) == 0 {
			break
		}
		if f := rest[0]; f.index == index {
			text, err := json.Marshal(describe(m, f, all.texts))
			if err != nil {
				return // it has only text and numbers
			}
			if len(rest) < len(all.failed) {
				text = append([]byte{','}, text...)
			}
			if _, err := w.Write(text); err != nil {
				return // the sender may have disconnected
			}
			rest = rest[1:]
		}
		index++
	}
	_, _ = w.Write([]byte("]}\n"))
}

func describe(m cloudevent.Member, f failure, texts []string) member {
	if m.Err != nil {
		return member{Index: f.index, Status: f.status, Error: oneLine("not a CloudEvent: " + m.Err.Error())}
	}
	return member{Index: f.index, Source: m.Event.Source(), ID: m.Event.ID(), Status: f.status, Error: texts[f.text]}
}
