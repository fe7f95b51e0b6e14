package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/webhook"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// maxReason is the maximum length of the reason in an answer, in bytes. Knative keeps as
// many in a dead letter.
const maxReason = 1024

// Handler serves events at POST / and dead letters at POST /dead-letters. Create it
// with [New]. It is safe for concurrent use.
type Handler struct {
	committer Committer
	config    Config
	byType    map[string]*functions.Function
	types     string // for error messages

	// Header values.
	won, lost, retry, maxBatch, maxBatchBytes, typesHeader, versions []string

	// underWay is held for reading by every request, and for writing by Drain, which
	// does not release it.
	underWay sync.RWMutex
	drain    sync.Once
	drained  chan struct{}
	draining draining

	calls, commits deadlines

	running *running

	// late has an element for each call that continues after its request was answered.
	late      sync.WaitGroup
	lateCalls atomic.Int64

	stuck atomic.Int64 // calls that ignore their deadline
	log   *eventLog
}

// New returns a Handler for functions, whose effects committer commits.
//
// The error reports invalid functions, an empty list, two functions with one name, and
// two for the same event type.
func New(fs []functions.Function, committer Committer, config Config) (*Handler, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("serve functions: %w", err)
	}
	if committer == nil {
		return nil, errors.New("serve functions: the committer is missing")
	}
	if len(fs) == 0 {
		return nil, errors.New("serve functions: the list is empty")
	}
	h := &Handler{
		committer: committer,
		config:    config,
		byType:    make(map[string]*functions.Function),
		won:       []string{outcome.ReceiptWon},
		lost:      []string{outcome.ReceiptLost},
		drained:   make(chan struct{}),
		retry:     []string{strconv.FormatInt(int64((config.RetryAfter+time.Second-1)/time.Second), 10)},
		maxBatch:  []string{strconv.Itoa(config.MaxBatch)},

		maxBatchBytes: []string{strconv.FormatInt(config.MaxBytes, 10)},

		calls:   deadlines{length: config.Deadline, now: config.Now},
		commits: deadlines{length: config.CommitTimeout, now: config.Now},
		running: newRunning(config.Now, config.MaxPending),
		log:     newEventLog(config.Logger),
	}
	names := make(map[string]bool)
	var types, stated, versions []string
	for _, f := range fs {
		if err := f.Validate(); err != nil {
			return nil, fmt.Errorf("serve functions: %w", err)
		}
		if names[f.Name] {
			return nil, fmt.Errorf("serve functions: two functions are named %s", f.Name)
		}
		names[f.Name] = true
		versions = append(versions, f.Name+"="+url.QueryEscape(f.Version))
		name := ";function=" + f.Name // once: the following types are of the same function
		for _, eventType := range f.Types {
			if other, ok := h.byType[eventType]; ok {
				return nil, fmt.Errorf("serve functions: %s and %s both have event type %q; serve them in different processes", other.Name, f.Name, eventType)
			}
			h.byType[eventType] = &f
			types, stated = append(types, eventType), append(stated, url.PathEscape(eventType)+name)
			name = ""
		}
	}
	h.types = strings.Join(types, ", ")
	h.typesHeader = []string{strings.Join(stated, ",")}
	h.versions = []string{strings.Join(versions, ",")}
	return h, nil
}

// Drain rejects new requests with 503. It returns when the requests under way have been
// answered and pending events are committed, or with an error if ctx ends first. It
// cannot be undone.
func (h *Handler) Drain(ctx context.Context) error {
	h.drain.Do(func() {
		h.draining.begin()
		go func() {
			h.underWay.Lock()
			h.late.Wait() // only requests add to it
			close(h.drained)
		}()
	})
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests and pending events under way: %w", context.Cause(ctx))
	}
}

// Alive returns an error if so many calls of functions ignored their deadline, and
// still run, that the process should be restarted. Until then the process serves as
// before.
func (h *Handler) Alive() error {
	if stuck := h.stuck.Load(); stuck >= int64(h.config.MaxStuck) {
		return fmt.Errorf("%d calls of functions ignored their deadline and still run", stuck)
	}
	return nil
}

// AdvertiseBatch sets the headers of an answer that state how many events and bytes a
// request may have, the types of events with their functions, and their versions.
// [Handler.ServeHTTP] does so itself.
func (h *Handler) AdvertiseBatch(header http.Header) {
	header[outcome.MaxBatchHeader] = h.maxBatch
	header[outcome.MaxBatchBytesHeader] = h.maxBatchBytes
	header[outcome.TypesHeader] = h.typesHeader
	header[eventing.VersionsHeader] = h.versions
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.AdvertiseBatch(w.Header())
	h.draining.follow(r)
	// TryRLock fails only if Drain holds the lock or waits for it.
	if !h.underWay.TryRLock() {
		w.Header().Set("Connection", "close")
		h.refuse(w, http.StatusServiceUnavailable, "shutting down")
		return
	}
	defer h.underWay.RUnlock()
	defer h.recoverPanic(w, r)

	deadLetter := r.URL.Path == "/dead-letters" && h.config.DeadLetters != nil
	if !deadLetter && r.URL.Path != "/" && r.URL.Path != "" {
		h.refuse(w, http.StatusNotFound, "not found: send events to /")
		return
	}
	switch {
	case r.Method == http.MethodOptions:
		webhook.AnswerHandshake(w, r)
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "OPTIONS, POST")
		h.refuse(w, http.StatusMethodNotAllowed, "send events with POST")
	case deadLetter:
		h.serveDeadLetter(w, r)
	default:
		h.serveEvents(w, r)
	}
}

func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	mode, body, err := h.receiveRequest(w, r, h.config.MaxBytes)
	if err != nil {
		h.refuseUnreadable(w, r, err)
		return
	}
	if mode == cloudevent.Batch {
		h.serveBatch(w, r, body)
		return
	}
	e, err := readEvent(mode, r.Header, body, false)
	if err != nil {
		h.refuseUnreadable(w, r, err)
		return
	}
	g := newGroup(r.Context(), h)
	g.list = g.one[:]
	c := &g.one[0]
	c.event, c.deferred = e, r.Header.Get(outcome.KeyHeader) != ""
	if c.function, c.err = h.findFunction(e); c.err != nil {
		h.log.logRefused(g.ctx, nil, e, c.err)
	} else {
		h.handle(g, false)
	}
	h.answerOne(w, c.result)
}

// answerOne answers a request with one event.
func (h *Handler) answerOne(w http.ResponseWriter, r result) {
	header := w.Header()
	h.draining.announce(header)
	if r.err != nil {
		header[outcome.OutcomeHeader] = []string{h.outcomeOf(r).Header()}
		h.refuse(w, statusOf(r.err), r.err.Error())
		return
	}
	header[outcome.ReceiptHeader] = h.lost
	if r.receipt.Won {
		header[outcome.ReceiptHeader] = h.won
	}
	header[outcome.KeyHeader] = []string{r.receipt.Key.String()}
	if digest := digestOf(r.receipt); digest != "" {
		header[outcome.DigestHeader] = []string{digest}
	}
	w.WriteHeader(http.StatusNoContent)
}

// findFunction returns the function for e.
func (h *Handler) findFunction(e event.Event) (*functions.Function, error) {
	f, ok := h.byType[e.Type()]
	if !ok {
		return nil, withStatus(http.StatusUnprocessableEntity,
			fmt.Errorf("no function for event type %q; the types are: %s", clip(e.Type(), 256), clip(h.types, 512)))
	}
	return f, nil
}

// refuseUnreadable answers a request from which no event could be read.
func (h *Handler) refuseUnreadable(w http.ResponseWriter, r *http.Request, err error) {
	h.log.logUnreadable(r.Context(), err)
	h.refuse(w, statusOf(err), err.Error())
}

// refuse answers with a status other than 2xx and text: one line, or one per event of a
// batch.
func (h *Handler) refuse(w http.ResponseWriter, status int, lines ...string) {
	header := w.Header()
	h.draining.announce(header)
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	switch status {
	case http.StatusServiceUnavailable:
		header["Retry-After"] = h.retry
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Bearer") // RFC 6750, section 3
	}
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(oneLine(line))
		text.WriteByte('\n')
	}
	header.Set("Content-Length", strconv.Itoa(text.Len()))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text.String()) // the sender may have disconnected
}

// recoverPanic answers 500 for a panic.
func (h *Handler) recoverPanic(w http.ResponseWriter, r *http.Request) {
	if value := recover(); value != nil {
		h.refuseUnreadable(w, r, withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()}))
	}
}
