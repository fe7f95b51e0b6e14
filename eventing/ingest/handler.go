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
// in the batch mode, optionally compressed with gzip. It answers
//
//   - 202 after the stream has stored all of them;
//   - 400 and the reason if it is not a CloudEvent;
//   - 408 if the body did not arrive in time;
//   - 413 or 431 if the event, or its attributes, are too large;
//   - 415 if its encoding, format or character set is not supported;
//   - 503 and Retry-After if it could not be stored, or too many events are being accepted.
//
// Each event of a batch is stored independently. If some are not stored, the status is the
// highest of theirs and the body is JSON that lists them, for example
//
//	{"stored":2,"failed":[{"index":1,"source":"/s","id":"2","status":413,"error":"…"}]}
//
// Sending events again is always safe, even a whole batch: the stream deduplicates them by
// source and id.
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

// New returns a Handler. The error describes an invalid cfg.
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
		health:    &health{publisher: publisher, ready: cfg.Ready, takesType: cfg.TakesType, now: cfg.Now},
		storing:   failurelog.New(cfg.Logger, cfg.Now, "storing events; senders are answered with 503"),
	}
	cfg.Metrics.observe(h.budget.used)
	h.mux.HandleFunc("POST /{$}", h.accept) // the mux answers other methods with 405
	h.mux.HandleFunc("OPTIONS /{$}", webhook.AnswerHandshake)
	h.mux.HandleFunc("GET /health", h.answerHealth)
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Ready returns why this cluster could not store an event now, within two seconds.
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
	all, memory, refused := h.store(w, r)
	if refused != nil {
		h.config.Metrics.refused(r.Context(), refused.reason, 1)
		h.answer(w, refused)
		return
	}
	defer memory.release()
	h.record(r.Context(), all)
	switch {
	case len(all.failed) == 0:
		h.config.Metrics.acceptedRequest(r.Context(), h.config.Now().Sub(begin))
		w.WriteHeader(http.StatusAccepted)
	case all.batch == nil:
		h.answer(w, &refusal{status: all.status(), text: all.texts[0]})
	default:
		h.answerBatch(w, all)
	}
}

// store stores the events of a request. The caller releases the memory after the request
// is answered.
func (h *Handler) store(w http.ResponseWriter, r *http.Request) (*result, *share, *refusal) {
	mode, err := cloudevent.ModeOf(r.Header.Get("Content-Type"))
	if err != nil {
		h.discard(w, r)
		return nil, nil, refuse(http.StatusUnsupportedMediaType, reasonUnsupported, "not a CloudEvent: %v", err)
	}
	body, memory, refused := h.receive(w, r, mode == cloudevent.Batch)
	if refused != nil {
		return nil, nil, refused
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.config.Timeout)
	type outcome struct {
		all     *result
		refused *refusal
	}
	done := make(chan outcome, 1)
	memory.retain()
	go func() {
		// If the connection to the stream hangs, the publisher may take longer than the
		// timeout to return, and holds its memory until it does.
		defer cancel()
		defer memory.release()
		all, refused := h.storeBody(ctx, mode, r.Header, body)
		done <- outcome{all, refused}
	}()
	var end outcome
	select {
	case end = <-done:
	case <-ctx.Done():
		select { // the publisher's error has more details
		case end = <-done:
		case <-time.After(publisherGrace):
			memory.release()
			return nil, nil, refuse(http.StatusServiceUnavailable, reasonUnavailable, "not stored, send it again: no answer from the stream within %s", h.config.Timeout)
		}
	}
	if end.refused != nil {
		memory.release()
		return nil, nil, end.refused
	}
	return end.all, memory, nil
}

// publisherGrace is how long a publisher may take to return after its context ended.
const publisherGrace = 100 * time.Millisecond

// storeBody stores the events of a body. It rejects invalid ones.
func (h *Handler) storeBody(ctx context.Context, mode cloudevent.Mode, header http.Header, body []byte) (*result, *refusal) {
	var e event.Event
	var err error
	switch mode {
	case cloudevent.Batch:
		return h.storeBatch(ctx, body)
	case cloudevent.Structured:
		e, err = cloudevent.ReadJSON(body, rules())
	default:
		e, err = cloudevent.ReadBinary(header, body, rules())
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, reasonInvalid, "not a CloudEvent: %v", err)
	}
	all := &result{}
	h.storeEvents(ctx, []event.Event{e}, []int32{0}, all)
	return all, nil
}

// answer answers a rejected request.
func (h *Handler) answer(w http.ResponseWriter, refused *refusal) {
	h.setRetryAfter(w, refused.status)
	if refused.status == http.StatusUnsupportedMediaType {
		w.Header().Set("Accept-Encoding", "gzip, identity")
	}
	http.Error(w, refused.text, refused.status)
}

func (h *Handler) setRetryAfter(w http.ResponseWriter, status int) {
	if status == http.StatusServiceUnavailable {
		seconds := max(1, (h.config.RetryAfter+time.Second-1)/time.Second)
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	}
}

// rules returns the rules of the functions for which the events are: an event that a
// function would reject is rejected here, where its sender is told.
func rules() cloudevent.Rules { return cloudevent.Rules{MaxName: cloudevent.MaxName} }

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
