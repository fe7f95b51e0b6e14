package serve

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
)

// maxDeadLetter bounds the body of a dead letter, in bytes. It must fit an event that
// is too large. NATS accepts no larger message.
const maxDeadLetter = 64 << 20

// serveDeadLetter saves a dead letter. It accepts events that are not fully valid,
// because that may be the reason why they are dead. It calls no function and does not
// use the ledger.
func (h *Handler) serveDeadLetter(w http.ResponseWriter, r *http.Request) {
	mode, body, err := h.receiveRequest(w, r, maxDeadLetter)
	if err == nil && mode == cloudevent.Batch {
		err = withStatus(http.StatusBadRequest, errors.New("a batch of dead letters: send them one by one"))
	}
	if err != nil {
		h.refuseUnreadable(w, r, err)
		return
	}
	e, err := readEvent(mode, r.Header, body, true)
	if err != nil {
		// The event cannot have another format either, for which 415 would be right.
		h.refuseUnreadable(w, r, withStatus(http.StatusBadRequest, err))
		return
	}
	letter := h.deadLetter(e)
	ctx, cancel := context.WithTimeout(r.Context(), h.config.CommitTimeout)
	defer cancel()
	if err := h.config.DeadLetters.Save(ctx, letter); err != nil {
		err = withStatus(http.StatusServiceUnavailable, fmt.Errorf("save dead letter: %w", err))
		h.log.logRefusedFor(r.Context(), letter.Function, letter.Event, err)
		h.refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// deadLetter returns the event without the extensions that dead-lettering added, and
// their values.
func (h *Handler) deadLetter(e event.Event) deadletter.Letter {
	letter := deadletter.Letter{Event: e}
	context, ok := e.Context.(*event.EventContextV1)
	if !ok {
		return letter
	}
	extensions := context.Extensions
	letter.Function, _ = extensions[eventing.FunctionExtension].(string)
	if letter.Function == "" {
		if f, ok := h.byType[e.Type()]; ok {
			letter.Function = f.Name
		}
	}
	letter.Code = number(extensions[eventing.ErrorCodeExtension])
	letter.Attempts = number(extensions[eventing.AttemptsExtension])
	letter.Reason, _ = extensions[eventing.ErrorDataExtension].(string)
	if text, err := base64.StdEncoding.DecodeString(letter.Reason); err == nil && utf8.Valid(text) {
		letter.Reason = strings.ReplaceAll(string(text), "\x00", "\ufffd")
	}
	letter.Reason = strings.TrimSpace(letter.Reason) // a body ends with a newline
	for _, name := range []string{eventing.FunctionExtension, eventing.AttemptsExtension, eventing.ErrorDestExtension, eventing.ErrorCodeExtension, eventing.ErrorDataExtension} {
		delete(extensions, name)
	}
	if len(extensions) == 0 {
		context.Extensions = nil
	}
	return letter
}

// number returns the value of an extension that is an integer, which headers carry as
// text; 0 if it is not one.
func number(extension any) int {
	switch value := extension.(type) {
	case string:
		if n, err := strconv.ParseUint(value, 10, 31); err == nil {
			return int(n)
		}
	case int32:
		return max(int(value), 0)
	}
	return 0
}
