package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/eventing/internal/webhook"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// Handler stores the CloudEvents of requests in a stream. Create it with [New]. It is safe
// for concurrent use.
//
// POST / accepts one event in the binary or the structured (JSON) content mode, or several
// in the batch mode, also compressed with gzip. It answers
//
//   - 202 after the stream has stored all of them;
//   - 400 and the reason if one is no CloudEvent, and then none is stored;
//   - 408 if the body did not arrive in time;
//   - 413 if it is too large;
//   - 415 if it is in an encoding, a format or a character set that is not read;
//   - 503 and Retry-After if it could not be stored, some of a batch could not, or too many
//     events are being accepted.
//
// To send events again is always right: the stream recognises them by source and id.
//
// OPTIONS / answers the handshake of CloudEvents' web hooks.
//
// GET /health is for a load balancer: it answers 200 if this cluster could store an event
// now, otherwise 503 and the reason, within two seconds.
type Handler struct {
	publisher eventing.Publisher
	config    Config
	mux       *http.ServeMux
	budget    *budget
	health    *health
	storing   *failurelog.Log
}

// New returns a Handler. The error describes what is wrong with cfg.
func New(publisher eventing.Publisher, cfg Config) (*Handler, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("set up ingest: %w", err)
	}
	h := &Handler{
		publisher: publisher,
		config:    cfg,
		mux:       http.NewServeMux(),
		budget:    newBudget(cfg.InFlightBytes, cfg.Now),
		health:    &health{publisher: publisher, ready: cfg.Ready, now: cfg.Now},
		storing:   failurelog.New(cfg.Logger, cfg.Now, "storing events"),
	}
	cfg.Metrics.observe(h.budget.used)
	h.mux.HandleFunc("POST /{$}", h.accept) // the mux answers other methods with 405
	h.mux.HandleFunc("OPTIONS /{$}", webhook.AnswerHandshake)
	h.mux.HandleFunc("GET /health", h.answerHealth)
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Ready reports why this cluster could not store an event now, within two seconds.
func (h *Handler) Ready(ctx context.Context) error {
	if h.config.Draining() {
		return errors.New("shutting down")
	}
	return h.health.check(ctx)
}

func (h *Handler) answerHealth(w http.ResponseWriter, r *http.Request) {
	if err := h.Ready(r.Context()); err != nil {
		h.answer(w, &refusal{status: http.StatusServiceUnavailable, text: oneLine(err.Error())})
	}
}

func (h *Handler) accept(w http.ResponseWriter, r *http.Request) {
	begin := h.config.Now()
	if refused := h.store(w, r); refused != nil {
		h.answer(w, refused)
		return
	}
	h.config.Metrics.acceptedRequest(r.Context(), h.config.Now().Sub(begin))
	w.WriteHeader(http.StatusAccepted)
}

// store stores the events of a request.
func (h *Handler) store(w http.ResponseWriter, r *http.Request) *refusal {
	mode, err := cloudevent.ModeOf(r.Header.Get("Content-Type"))
	if err != nil {
		h.discard(w, r)
		h.config.Metrics.refused(r.Context(), reasonUnsupported, 1)
		return refuse(http.StatusUnsupportedMediaType, reasonUnsupported, "no CloudEvent: %v", err)
	}
	body, memory, refused := h.receive(w, r)
	if refused != nil {
		h.config.Metrics.refused(r.Context(), refused.reason, 1)
		return refused
	}
	events, err := decode(mode, r.Header, body)
	if err != nil || len(events) == 0 { // an empty batch
		memory.release()
		if err != nil {
			h.config.Metrics.refused(r.Context(), reasonInvalid, 1)
			return refuse(http.StatusBadRequest, reasonInvalid, "%v", err)
		}
		return nil
	}

	err = h.publish(r.Context(), events, memory)
	switch {
	case err == nil:
		h.health.stored()
		h.storing.Succeeded(r.Context())
		h.config.Metrics.accepted(r.Context(), len(events))
		return nil
	case errors.Is(err, eventing.ErrTooLarge):
		h.config.Metrics.refused(r.Context(), reasonTooLarge, len(events))
		return refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "%v", err)
	}
	if r.Context().Err() == nil { // otherwise the sender went away
		h.health.failed(events[0])
		h.storing.Failed(r.Context(), err)
	}
	h.config.Metrics.refused(r.Context(), reasonUnavailable, len(events))
	return refuse(http.StatusServiceUnavailable, reasonUnavailable, "not stored, send it again: %v", err)
}

// publish stores events. It returns when ctx or the timeout has ended, also if the
// connection to the stream hangs and the publisher does not return; the memory is held
// until it does.
func (h *Handler) publish(ctx context.Context, events []event.Event, memory *share) error {
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
	result := make(chan error, 1)
	go func() {
		defer cancel()
		defer memory.release()
		result <- h.publisher.Publish(ctx, events)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select { // the publisher knows more
	case err := <-result:
		return err
	case <-time.After(publisherGrace):
		return context.Cause(ctx)
	}
}

// publisherGrace is how long a publisher may take to return after its context ended.
const publisherGrace = 100 * time.Millisecond

// answer answers a refused request.
func (h *Handler) answer(w http.ResponseWriter, refused *refusal) {
	switch refused.status {
	case http.StatusServiceUnavailable:
		seconds := max(1, (h.config.RetryAfter+time.Second-1)/time.Second)
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	case http.StatusUnsupportedMediaType:
		w.Header().Set("Accept-Encoding", "gzip, identity")
	}
	http.Error(w, refused.text, refused.status)
}

// decode reads the events of a body. The error describes why it is no CloudEvent.
func decode(mode cloudevent.Mode, header http.Header, body []byte) ([]event.Event, error) {
	var e event.Event
	var err error
	switch mode {
	case cloudevent.Batch:
		return decodeBatch(body)
	case cloudevent.Structured:
		e, err = cloudevent.ReadJSON(body, cloudevent.Rules{})
	default:
		e, err = cloudevent.ReadBinary(header, body, cloudevent.Rules{})
	}
	if err != nil {
		return nil, fmt.Errorf("no CloudEvent: %w", err)
	}
	return []event.Event{e}, nil
}

func decodeBatch(body []byte) ([]event.Event, error) {
	members, err := cloudevent.ReadBatch(body, cloudevent.Rules{})
	if err != nil {
		return nil, fmt.Errorf("no batch of CloudEvents: %w", err)
	}
	events := make([]event.Event, len(members))
	for i, m := range members {
		if m.Err != nil {
			return nil, fmt.Errorf("nothing is stored: event %d of %d: no CloudEvent: %w", i+1, len(members), m.Err)
		}
		events[i] = m.Event
	}
	return events, nil
}

// maxReason bounds the text of an answer, in bytes.
const maxReason = 1024

func oneLine(text string) string {
	return clip(strings.Join(strings.Fields(text), " "))
}

// clip bounds a text that an answer quotes.
func clip(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}
