package delivery

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
)

// functionTypes are the event types that a function has stated.
type functionTypes struct {
	mu     sync.Mutex
	header string            // the latest
	types  map[string]bool   // is replaced, never modified; nil if none were stated
	names  map[string]string // of the functions, by type; is replaced, never modified
	at     time.Time         // of the latest statement
}

// read reads the types that an answer states. During a rollout, answers of two versions
// alternate; a type that one of them knows remains known.
func (t *functionTypes) read(now time.Time, header http.Header) {
	value := header.Get(outcome.TypesHeader)
	if value == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = now
	if value == t.header {
		return
	}
	t.header = value
	types, names := map[string]bool{}, map[string]string{}
	maps.Copy(types, t.types)
	maps.Copy(names, t.names)
	for known, function := range parseTypes(value) {
		if types[known] = true; function != "" {
			names[known] = function
		}
	}
	t.types, t.names = types, names
}

// parseTypes returns the event types of an [outcome.TypesHeader], each with the name of its
// function; the name is empty if it is not stated.
func parseTypes(header string) map[string]string {
	types, function := map[string]string{}, ""
	for stated := range strings.SplitSeq(header, ",") {
		encoded, parameters, _ := strings.Cut(strings.TrimSpace(stated), ";")
		if name, ok := strings.CutPrefix(strings.TrimSpace(parameters), "function="); ok {
			function = name
		}
		if t, err := url.PathUnescape(strings.TrimSpace(encoded)); err == nil && t != "" {
			types[t] = function
		}
	}
	return types
}

// Types returns the event types that the function has stated, in any answer so far; nil if
// it has stated none. The caller must not modify the map.
func (d *Sender) Types() map[string]bool {
	d.types.mu.Lock()
	defer d.types.mu.Unlock()
	return d.types.types
}

// FunctionOf returns the stated name of the function of an event type; empty if no answer has
// stated it.
func (d *Sender) FunctionOf(eventType string) string {
	d.types.mu.Lock()
	defer d.types.mu.Unlock()
	return d.types.names[eventType]
}

// TypesAge returns the time since the function last stated its types.
func (d *Sender) TypesAge() time.Duration {
	d.types.mu.Lock()
	defer d.types.mu.Unlock()
	return d.cfg.Now().Sub(d.types.at)
}

// AskTypes asks the function for its types with a request that has no event. It starts a
// function that is scaled to zero. The error means that no function answered.
func (d *Sender) AskTypes(ctx context.Context) (err error) {
	for _, u := range d.function.urls() {
		if err = d.askTypes(ctx, u); err == nil {
			return nil
		}
	}
	return fmt.Errorf("ask the function for its types: %w", err)
}

func (d *Sender) askTypes(ctx context.Context, u *url.URL) error {
	timeout := d.cfg.Timeout
	if len(d.function.members) > 1 {
		timeout = min(timeout, probeTimeout) // another instance may answer
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodOptions, u.String(), nil)
	if err != nil {
		return err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return sink.Cause(err)
	}
	defer func() { _ = res.Body.Close() }() // the body is not needed
	d.types.read(d.cfg.Now(), res.Header)
	if d.Types() == nil && res.StatusCode >= 500 {
		return &sink.StatusError{Code: res.StatusCode}
	}
	return nil
}
