package ingest

import (
	"cmp"
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

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/failurelog"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// Config sets up [New]. A field left at zero takes the default named
// beside it.
type Config struct {
	// MaxEventBytes bounds the body of a request. Defaults to 1 MiB, as NATS
	// does for a message.
	MaxEventBytes int64

	// Timeout bounds the storing of an event. Defaults to 5 s.
	Timeout time.Duration

	// RetryAfter is what a sender is asked to wait while events cannot be
	// stored, in whole seconds. Defaults to 1 s.
	RetryAfter time.Duration

	// Ready reports why this cluster could not store an event now, as far as it
	// can be told without storing one; GET /health asks it. Nil is always ready.
	Ready func(ctx context.Context) error

	// Draining reports whether the process is about to end, which GET /health then
	// says. Nil is never.
	Draining func() bool

	// Logger is told when events cannot be stored (warn, then error once a
	// minute), never about payloads. Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock of the log. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.MaxEventBytes = cmp.Or(c.MaxEventBytes, 1<<20)
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.RetryAfter = cmp.Or(c.RetryAfter, time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Ready == nil {
		c.Ready = func(context.Context) error { return nil }
	}
	if c.Draining == nil {
		c.Draining = func() bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

// ingest takes CloudEvents over HTTP.
type ingest struct {
	publisher eventing.Publisher
	storing   *failurelog.Log
	health    *health
	cfg       Config
}

// New makes the handler that stores CloudEvents in a stream.
//
// POST / takes one event in the binary or the structured (JSON) content mode, or
// several in the batch mode, and answers 202, only after the stream has stored all
// of them; 400 and the reason if one is no CloudEvent, and then none is stored; 413
// if it is too large; 503 and Retry-After if it could not be stored, or some of a
// batch could not. To send events again is always right: the stream recognises them
// by source and id.
//
// GET /health is for a load balancer: it answers 200 if this cluster could store an event now, else 503 and
// the reason, within two seconds. When storing an event has failed it is that event
// that it tries to store.
func New(publisher eventing.Publisher, cfg Config) http.Handler {
	cfg = cfg.withDefaults()
	in := &ingest{
		publisher: publisher,
		storing:   failurelog.New(cfg.Logger, cfg.Now, "storing events"),
		health:    &health{publisher: publisher, ready: cfg.Ready, now: cfg.Now},
		cfg:       cfg,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", in.take) // the mux answers other methods with 405
	mux.HandleFunc("GET /health", in.answerHealth)
	return mux
}

func (in *ingest) take(w http.ResponseWriter, r *http.Request) {
	events, err := decodeRequest(w, r, in.cfg.MaxEventBytes)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		http.Error(w, fmt.Sprintf("too large: at most %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, oneLine(err), http.StatusBadRequest)
		return
	case len(events) == 0: // an empty batch
		w.WriteHeader(http.StatusAccepted)
		return
	}

	ctx, cancel := context.WithTimeout(r.Context(), in.cfg.Timeout)
	defer cancel()
	err = in.publisher.Publish(ctx, events)
	switch {
	case err == nil:
		in.health.stored()
		in.storing.Succeeded(r.Context())
		w.WriteHeader(http.StatusAccepted)
	case errors.Is(err, eventing.ErrTooLarge):
		http.Error(w, oneLine(err), http.StatusRequestEntityTooLarge)
	default:
		if r.Context().Err() == nil { // else the sender went away
			in.health.failed(events[0])
			in.storing.Failed(r.Context(), err)
		}
		in.unavailable(w, "not stored, send it again: "+oneLine(err))
	}
}

func (in *ingest) answerHealth(w http.ResponseWriter, r *http.Request) {
	if in.cfg.Draining() {
		in.unavailable(w, "shutting down")
		return
	}
	if err := in.health.check(r.Context()); err != nil {
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

// decodeRequest reads CloudEvents from an HTTP request. The error is a
// [http.MaxBytesError] or says why something is no CloudEvent.
func decodeRequest(w http.ResponseWriter, r *http.Request, limit int64) ([]event.Event, error) {
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	contentType := r.Header.Get("Content-Type")
	if mode, err := cloudevent.ModeOf(contentType); err == nil && mode == cloudevent.Batch {
		return decodeBatch(body)
	}
	e, err := cloudevent.Read(contentType, r.Header, body, cloudevent.Rules{})
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

func oneLine(err error) string {
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}
