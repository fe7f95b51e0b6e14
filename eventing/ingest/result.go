package ingest

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

// result is the result of the events of a request. It takes little memory even if all of
// many small ones fail.
type result struct {
	batch   []byte // the body; nil for a single event
	stored  int
	failed  []failure
	refused struct{ invalid, tooLarge, unavailable int } // of failed
	texts   []string                                     // of failures; the last one stands for all further texts
	err     error                                        // of an event that the stream could not store now
}

// failure is an event that was not stored.
type failure struct {
	index  int32
	status int16
	text   int16 // index in the texts, or unreadable
}

// unreadable is the text of an event that is not a CloudEvent: decoding it again returns
// the text.
const unreadable = -1

// maxTexts bounds the distinct texts of a result.
const maxTexts = 32

// status returns the status of the answer: the most important one for a retry.
func (r *result) status() int {
	status := int16(http.StatusAccepted)
	for _, f := range r.failed {
		status = max(status, f.status)
	}
	return int(status)
}

// textOf returns the index of a text, which is added if it is new and there is room.
func (r *result) textOf(text string) int16 {
	i := slices.Index(r.texts, text)
	if i < 0 && len(r.texts) == maxTexts {
		r.texts[maxTexts-1] = "not stored, for one of many reasons"
		i = maxTexts - 1
	}
	if i < 0 {
		i = len(r.texts)
		r.texts = append(r.texts, text)
	}
	return int16(i)
}

// storeEvents stores events, and adds their results to all.
func (h *Handler) storeEvents(ctx context.Context, events []event.Event, indexes []int32, all *result) {
	err := h.publisher.Publish(ctx, events)
	failing := -1 // an event that the stream could not store now
	stored := 0
	for i, reason := range contract.ReasonsOf(err, len(events)) {
		var rejected *eventing.Rejection
		f := failure{index: indexes[i]}
		switch {
		case reason == nil:
			stored++
			continue
		case errors.As(reason, &rejected):
			f.status, f.text = int16(rejected.Code), all.textOf(oneLine(reason.Error()))
			all.refused.tooLarge++
		default:
			f.status, f.text = http.StatusServiceUnavailable, all.textOf(oneLine("not stored, send it again: "+reason.Error()))
			all.refused.unavailable++
			failing, all.err = i, reason
		}
		all.failed = append(all.failed, f)
	}
	all.stored += stored
	if stored > 0 {
		h.health.stored()
	}
	if failing >= 0 && !errors.Is(context.Cause(ctx), context.Canceled) { // otherwise the sender disconnected
		h.health.failed(events[failing])
	}
}

// record counts and logs the result of a request.
func (h *Handler) record(ctx context.Context, all *result) {
	m := h.config.Metrics
	m.accepted(ctx, all.stored)
	m.refused(ctx, reasonInvalid, all.refused.invalid)
	m.refused(ctx, reasonTooLarge, all.refused.tooLarge)
	m.refused(ctx, reasonUnavailable, all.refused.unavailable)
	switch {
	case all.stored > 0:
		h.storing.Succeeded(ctx)
	case all.err != nil && ctx.Err() == nil:
		h.storing.Failed(ctx, all.err)
	}
}
