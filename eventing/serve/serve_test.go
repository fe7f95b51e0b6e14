package serve_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// memory is a committer for tests of the HTTP behavior: an event is won once, and its
// type determines what else happens.
type memory struct {
	mu     sync.Mutex
	events map[[2]string]event.Event
	err    error

	batches int // calls of CommitAll
}

func (m *memory) Commit(ctx context.Context, o sinkwriter.Offer) (sinkwriter.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return sinkwriter.Receipt{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return sinkwriter.Receipt{}, m.err
	}
	if m.events == nil {
		m.events = make(map[[2]string]event.Event)
	}
	e := o.Event
	identity := [2]string{e.Source(), e.ID()}
	_, lost := m.events[identity]
	if !lost {
		m.events[identity] = e
	}
	return sinkwriter.Receipt{Won: !lost, Key: ledger.NewKey(o.Function, e.Source(), e.ID()), Digest: [16]byte{0xab}}, nil
}

func (m *memory) CommitAll(ctx context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	m.mu.Lock()
	m.batches++
	m.mu.Unlock()
	outcomes := make([]sinkwriter.Outcome, len(offers))
	for i, o := range offers {
		outcomes[i].Receipt, outcomes[i].Err = m.Commit(ctx, o)
	}
	return outcomes
}

func (m *memory) committed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.events)
}

// shelf is a DeadLetters for tests of the HTTP behavior.
type shelf struct {
	mu      sync.Mutex
	letters []deadletter.Letter
	err     error
}

func (s *shelf) Save(_ context.Context, letter deadletter.Letter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.letters = append(s.letters, letter)
	}
	return s.err
}

func function(types string, handle functions.Func) functions.Function {
	return functions.Function{Name: strings.ReplaceAll(types, ".", "-"), Version: "v1", Types: []string{types}, Handle: handle}
}

// some returns functions that behave according to their types.
func some() []functions.Function {
	return []functions.Function{
		function("fine", func(context.Context, event.Event) (functions.Effects, error) { return functions.Effects{}, nil }),
		function("rejects", func(context.Context, event.Event) (functions.Effects, error) {
			return functions.Effects{}, functions.Reject(errors.New("origin: missing"))
		}),
		function("fails", func(context.Context, event.Event) (functions.Effects, error) {
			return functions.Effects{}, errors.New("division by zero\nin line 2")
		}),
		function("panics", func(context.Context, event.Event) (functions.Effects, error) {
			panic("a secret")
		}),
		function("waits", func(ctx context.Context, _ event.Event) (functions.Effects, error) {
			<-ctx.Done()
			return functions.Effects{}, ctx.Err()
		}),
	}
}

func newHandler(tb testing.TB, c serve.Committer, config serve.Config) *serve.Handler {
	tb.Helper()

	h, err := serve.New(some(), c, config)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func newServer(tb testing.TB, h http.Handler) *httptest.Server {
	tb.Helper()

	server := httptest.NewServer(h)
	tb.Cleanup(server.Close)
	return server
}

// answer is the answer to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// client has its own connections: those of the default client are closed with every
// test's server.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// send posts body with headers written as "name: value".
func send(tb testing.TB, url, body string, headers ...string) answer {
	tb.Helper()

	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	return do(tb, req)
}

func do(tb testing.TB, req *http.Request) answer {
	tb.Helper()

	resp, err := client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
}

// binary returns the headers of an event.
func binary(eventType, id string) []string {
	return []string{"ce-specversion: 1.0", "ce-source: /tests", "ce-type: " + eventType, "ce-id: " + id, "content-type: application/json"}
}

func (a answer) want(tb testing.TB, status int, says string) {
	tb.Helper()

	if a.status != status || !strings.Contains(a.body, says) {
		tb.Errorf("answer is %d %q, want %d with %q", a.status, a.body, status, says)
	}
	if status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		tb.Error("503 has no Retry-After")
	}
	if status != http.StatusNoContent && status != http.StatusOK {
		if lines := strings.Count(a.body, "\n"); lines != 1 || !strings.HasSuffix(a.body, "\n") {
			tb.Errorf("body %q has %d lines, want 1", a.body, lines)
		}
		if got := a.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
			tb.Errorf("content type of the answer is %q", got)
		}
	}
}
