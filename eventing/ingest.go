package eventing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// IngestConfig sets up [NewIngest]. A field left at zero takes the default named
// beside it.
type IngestConfig struct {
	// MaxEventBytes bounds the body of a request. Defaults to 1 MiB, as NATS
	// does for a message.
	MaxEventBytes int64

	// Timeout bounds the storing of an event. Defaults to 5 s.
	Timeout time.Duration

	// RetryAfter is what a sender is asked to wait while events cannot be
	// stored, in whole seconds. Defaults to 1 s.
	RetryAfter time.Duration

	// Ready reports why this cluster could not store an event now; GET /health
	// answers with it. Nil is always ready.
	Ready func(ctx context.Context) error

	// Logger is told when events cannot be stored (warn, then error once a
	// minute), never about payloads. Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c IngestConfig) withDefaults() IngestConfig {
	setDefault(&c.MaxEventBytes, 1<<20)
	setDefault(&c.Timeout, 5*time.Second)
	setDefault(&c.RetryAfter, time.Second)
	setDefault(&c.Logger, slog.New(slog.DiscardHandler))
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

// ingest takes CloudEvents over HTTP.
type ingest struct {
	publisher Publisher
	storing   *outage
	cfg       IngestConfig
}

// NewIngest makes the handler that stores CloudEvents in a stream.
//
// POST / takes one event in the binary or the structured (JSON) content mode and
// answers 202, only after the stream has stored it; 400 and the reason if it is
// no CloudEvent; 413 if it is too large; 503 and Retry-After if it could not be
// stored. To send an event again is always right: the stream recognises it by
// source and id.
//
// GET /health answers 200 while events can be stored, else 503 and the reason.
func NewIngest(publisher Publisher, cfg IngestConfig) http.Handler {
	cfg = cfg.withDefaults()
	in := &ingest{
		publisher: publisher,
		storing:   newOutage(cfg.Logger, cfg.Now, "storing events"),
		cfg:       cfg,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", in.take) // the mux answers other methods with 405
	mux.HandleFunc("GET /health", in.health)
	return mux
}

func (in *ingest) take(w http.ResponseWriter, r *http.Request) {
	e, err := decodeRequest(w, r, in.cfg.MaxEventBytes)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("event too large: at most %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, oneLine(err), http.StatusBadRequest)
		return
	}

	ctx, cancel := context.WithTimeout(r.Context(), in.cfg.Timeout)
	defer cancel()
	err = in.publisher.Publish(ctx, []event.Event{e})
	switch {
	case err == nil:
		in.storing.succeeded(r.Context())
		w.WriteHeader(http.StatusAccepted)
	case errors.Is(err, ErrTooLarge):
		http.Error(w, oneLine(err), http.StatusRequestEntityTooLarge)
	default:
		if r.Context().Err() == nil { // else the sender went away
			in.storing.failed(r.Context(), err)
		}
		in.unavailable(w, "event not stored, send it again: "+oneLine(err))
	}
}

func (in *ingest) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), in.cfg.Timeout)
	defer cancel()
	if err := in.cfg.Ready(ctx); err != nil {
		in.unavailable(w, oneLine(err))
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (in *ingest) unavailable(w http.ResponseWriter, reason string) {
	seconds := max(1, (in.cfg.RetryAfter+time.Second-1)/time.Second)
	w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	http.Error(w, reason, http.StatusServiceUnavailable)
}

// decodeRequest reads a CloudEvent from an HTTP request. The error is a
// [http.MaxBytesError] or says why it is no CloudEvent.
func decodeRequest(w http.ResponseWriter, r *http.Request, limit int64) (event.Event, error) {
	if r.ContentLength > limit {
		return event.Event{}, &http.MaxBytesError{Limit: limit}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return event.Event{}, fmt.Errorf("read body: %w", err)
	}
	e, err := cloudevent.Read(r.Header.Get("Content-Type"), r.Header, body, cloudevent.Rules{})
	if err != nil {
		return event.Event{}, fmt.Errorf("no CloudEvent: %w", err)
	}
	return e, nil
}

func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
