package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// maxReason bounds a line of an answer, in bytes. It is as much as Knative keeps
// of it in a dead letter.
const maxReason = 1024

// Handler serves events at POST / and dead letters at POST /dead-letters. Make
// it with [New]. For concurrent use.
type Handler struct {
	committer Committer
	config    Config
	byType    map[string]*functions.Function
	types     string // for people

	// Values of headers, made once.
	won, lost, retry []string

	// gate is held for reading by every request, and for writing, for ever, by
	// Drain.
	gate    sync.RWMutex
	drain   sync.Once
	drained chan struct{}

	calls, commits deadlines

	stuck atomic.Int64
	log   *journal
}

// New makes a Handler for functions, whose effects committer commits.
//
// It refuses functions that are not valid, no functions, two with one name, and
// two that take the same event type.
func New(fs []functions.Function, committer Committer, config Config) (*Handler, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("serve functions: %w", err)
	}
	if committer == nil {
		return nil, errors.New("serve functions: a committer is missing")
	}
	if len(fs) == 0 {
		return nil, errors.New("serve functions: there are none")
	}
	h := &Handler{
		committer: committer,
		config:    config,
		byType:    make(map[string]*functions.Function),
		won:       []string{eventing.ReceiptWon},
		lost:      []string{eventing.ReceiptLost},
		drained:   make(chan struct{}),
		retry:     []string{strconv.FormatInt(int64((config.RetryAfter+time.Second-1)/time.Second), 10)},
		calls:     deadlines{length: config.Deadline, now: config.Now},
		commits:   deadlines{length: config.CommitTimeout, now: config.Now},
		log:       newJournal(config.Logger),
	}
	names := make(map[string]bool)
	var types []string
	for _, f := range fs {
		if err := f.Validate(); err != nil {
			return nil, fmt.Errorf("serve functions: %w", err)
		}
		if names[f.Name] {
			return nil, fmt.Errorf("serve functions: two are named %s", f.Name)
		}
		names[f.Name] = true
		for _, eventType := range f.Types {
			if other, ok := h.byType[eventType]; ok {
				return nil, fmt.Errorf("serve functions: %s and %s both take events of type %q; serve them apart", other.Name, f.Name, eventType)
			}
			h.byType[eventType] = &f
			types = append(types, eventType)
		}
	}
	h.types = strings.Join(types, ", ")
	return h, nil
}

// Drain refuses new requests with 503 and returns when those under way have been
// answered, or with an error when ctx ends first. There is no way back.
func (h *Handler) Drain(ctx context.Context) error {
	h.drain.Do(func() {
		go func() {
			h.gate.Lock()
			close(h.drained)
		}()
	})
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests under way: %w", context.Cause(ctx))
	}
}

// Alive reports that so many calls of functions ignored their deadline, and still
// run, that only a new process helps.
func (h *Handler) Alive() error {
	if stuck := h.stuck.Load(); stuck >= int64(h.config.MaxStuck) {
		return fmt.Errorf("%d calls of functions ignored their deadline and still run", stuck)
	}
	return nil
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Fails only if Drain holds the gate or waits for it.
	if !h.gate.TryRLock() {
		w.Header().Set("Connection", "close")
		h.refuse(w, http.StatusServiceUnavailable, "shutting down")
		return
	}
	defer h.gate.RUnlock()
	defer h.recover(w, r)

	deadLetter := r.URL.Path == "/dead-letters" && h.config.DeadLetters != nil
	if !deadLetter && r.URL.Path != "/" && r.URL.Path != "" {
		h.refuse(w, http.StatusNotFound, "nothing is served here: send events to /")
		return
	}
	switch {
	case r.Method == http.MethodOptions:
		shakeHands(w, r)
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
	mode, body, err := h.receive(w, r, h.config.MaxBytes)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if mode == cloudevent.Batch {
		h.serveBatch(w, r, body)
		return
	}
	e, err := readEvent(mode, r.Header, body, false)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	receipt, err := h.handle(r.Context(), e)
	if err != nil {
		h.refuse(w, statusOf(err), err.Error())
		return
	}
	header := w.Header()
	header[eventing.ReceiptHeader] = h.lost
	if receipt.Won {
		header[eventing.ReceiptHeader] = h.won
	}
	header[eventing.KeyHeader] = []string{receipt.Key}
	w.WriteHeader(http.StatusNoContent)
}

// find gives the function for e.
func (h *Handler) find(e event.Event) (*functions.Function, error) {
	f, ok := h.byType[e.Type()]
	if !ok {
		return nil, withStatus(http.StatusUnprocessableEntity,
			fmt.Errorf("no function takes events of type %q; the types are: %s", clip(e.Type(), 256), clip(h.types, 512)))
	}
	return f, nil
}

// handle has the function for e compute its effects, and these committed. What
// goes wrong is logged here, where the event is known.
func (h *Handler) handle(ctx context.Context, e event.Event) (Receipt, error) {
	f, err := h.find(e)
	if err != nil {
		h.log.refused(ctx, nil, e, err)
		return Receipt{}, err
	}
	cs := &calls{}
	cs.list = cs.one[:]
	c := &cs.one[0]
	c.function, c.event = f, e
	h.compute(ctx, cs)
	if c.failure != nil {
		h.log.refused(ctx, f, e, c.failure)
		return Receipt{}, c.failure
	}
	receipt, err := h.commit(ctx, cs)
	if err != nil {
		h.log.refused(ctx, f, e, err)
		return Receipt{}, err
	}
	h.log.committed(ctx, f, e, receipt)
	return receipt, nil
}

// commit has the effects of one event committed.
func (h *Handler) commit(ctx context.Context, cs *calls) (receipt Receipt, err error) {
	defer func() {
		if value := recover(); value != nil {
			// As it may be this event that does it, it counts.
			err = withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()})
		}
	}()
	h.commits.begin(ctx, &cs.commit)
	defer h.commits.end(&cs.commit)
	c := &cs.one[0]
	return h.committer.Commit(&cs.commit, *c.function, c.event, c.effects)
}

// fail answers a request that no event could be read from.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.log.unreadable(r.Context(), err)
	h.refuse(w, statusOf(err), err.Error())
}

// refuse answers with a status other than 2xx, and text: one line, or one for
// each event of a batch.
func (h *Handler) refuse(w http.ResponseWriter, status int, lines ...string) {
	header := w.Header()
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
		text.WriteString(clip(strings.Join(strings.Fields(line), " "), maxReason))
		text.WriteByte('\n')
	}
	header.Set("Content-Length", strconv.Itoa(text.Len()))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text.String()) // who has gone needs no answer
}

// recover answers 500 for a panic that is nobody else's.
func (h *Handler) recover(w http.ResponseWriter, r *http.Request) {
	if value := recover(); value != nil {
		h.fail(w, r, withStatus(http.StatusInternalServerError, &panicError{value: value, stack: debug.Stack()}))
	}
}
