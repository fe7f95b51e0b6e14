package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const jsonEvent = `{"specversion":"1.0","id":"7","source":"/tests","type":"fine","data":{"a":1}}`

func TestAnswersSayWhoseFaultItIs(t *testing.T) {
	t.Parallel()

	structured := "content-type: application/cloudevents+json"
	tests := []struct {
		name    string
		body    string
		headers []string
		status  int
		says    string
	}{
		{"event in headers", `{}`, binary("fine", "1"), 204, ""},
		{"event without data", ``, binary("fine", "1"), 204, ""},
		{"event in JSON", jsonEvent, []string{structured}, 204, ""},
		{"content type in another case", jsonEvent, []string{"content-type: Application/CloudEvents+JSON ; charset=\"UTF-8\""}, 204, ""},
		{"nothing of an event", `{"a":1}`, []string{"content-type: application/json"}, 415, "this is not a CloudEvent: send the headers ce-specversion"},
		{"event in XML", `<event/>`, []string{"content-type: application/cloudevents+xml"}, 415, `content type "application/cloudevents+xml" is not supported`},
		{"other character set", jsonEvent, []string{structured + "; charset=utf-16"}, 415, `charset "utf-16" is not supported`},
		{"compressed", jsonEvent, []string{structured, "content-encoding: gzip"}, 415, `content-encoding "gzip" is not supported`},
		{"no version", `{}`, []string{"ce-id: 1", "ce-source: /s", "ce-type: fine"}, 400, "specversion: missing"},
		{"unknown version", `{}`, []string{"ce-specversion: 9", "ce-id: 1"}, 400, `specversion "9": want 1.0 or 0.3`},
		{"no id", `{}`, []string{"ce-specversion: 1.0", "ce-source: /s", "ce-type: fine"}, 400, "id: missing"},
		{"two ids", `{}`, append(binary("fine", "1"), "ce-id: 2"), 400, "id: the header occurs 2 times"},
		{"long id", `{}`, binary("fine", strings.Repeat("x", 1025)), 400, "id: it has 1025 bytes, at most 1024 are accepted"},
		{"longest id", `{}`, binary("fine", strings.Repeat("x", 1024)), 204, ""},
		{"NUL in the id", `{}`, binary("fine", "a%00"), 400, "id: control character U+0000 at byte 1"},
		{"line break in the id, which no output could name as its cause", `{}`, binary("fine", "a%0A"), 400, "id: control character U+000A at byte 1"},
		{"content type as an attribute", `{}`, append(binary("fine", "1"), "ce-datacontenttype: text/plain"), 400, "header ce-datacontenttype: not an attribute of the HTTP binding, send content-type"},
		{"version 0.3", `{}`, []string{"ce-specversion: 0.3", "ce-id: 1", "ce-source: /s", "ce-type: fine"}, 204, ""},
		{"version 0.3 in JSON", strings.Replace(jsonEvent, "1.0", "0.3", 1), []string{structured}, 204, ""},
		{"bad time", `{}`, append(binary("fine", "1"), "ce-time: yesterday"), 400, `time "yesterday": want a time as in RFC 3339`},
		{"broken JSON", `{"specversion":"1.0",`, []string{structured}, 400, "it is not JSON: at byte 21: unexpected end of JSON input"},
		{"no JSON at all", ``, []string{structured}, 400, "it is empty"},
		{"array", `[]`, []string{structured}, 400, "want a JSON object"},
		{"base64 that is a number", `{"specversion":"1.0","id":"7","source":"/tests","type":"fine","data_base64":5}`, []string{structured}, 400, "data_base64: want a string"},
		{"type nobody takes", `{}`, binary("other", "1"), 422, `no function for event type "other"; the types are: fine, rejects`},
		{"event that the function rejects", `{}`, binary("rejects", "1"), 422, "function rejects: origin: missing"},
		{"function that fails", `{}`, binary("fails", "1"), 500, "function fails: division by zero in line 2"},
		{"function that panics", `{}`, binary("panics", "1"), 500, "function panics: panic: a secret"},
		{"function that takes too long", `{}`, binary("waits", "1"), 500, "function waits: not done within 50ms"},
		{"body over the limit", strings.Repeat(" ", 1025), binary("fine", "1"), 413, "want at most 1024 bytes"},
		{"body at the limit", strings.Repeat(" ", 1024), binary("fine", "1"), 204, ""},
	}
	server := newServer(t, newHandler(t, &memory{}, serve.Config{MaxBytes: 1024}))
	quick := newServer(t, newHandler(t, &memory{}, serve.Config{MaxBytes: 1024, Deadline: 50 * time.Millisecond}))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			url := server.URL
			if strings.Contains(tt.says, "not done within 50ms") {
				url = quick.URL
			}
			send(t, url, tt.body, tt.headers...).want(t, tt.status, tt.says)
		})
	}
}

func TestReceiptSaysWhoWon(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, &memory{}, serve.Config{}))
	for _, want := range []string{"won", "lost", "lost"} {
		a := send(t, server.URL, "{}", binary("fine", "1")...)
		a.want(t, 204, "")
		if got := a.header.Get("Tandem-Receipt"); got != want {
			t.Errorf("Tandem-Receipt is %q, want %q", got, want)
		}
		if got, want := a.header.Get("Tandem-Key"), ledger.NewKey("fine", "/tests", "1").String(); got != want {
			t.Errorf("Tandem-Key is %q, want %s", got, want)
		}
	}
}

func TestCommitterDecidesBetweenTheEventAndTheSurroundings(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name   string
		err    error
		status int
		says   string
	}{
		{"bad data", fmt.Errorf("apply: %w", functions.Reject(errors.New("value out of range"))), 422, "apply: value out of range"},
		{"no database", errors.New("connection refused"), 503, "connection refused"},
		{"row that another event brings", &sinkwriter.Error{Fault: sinkwriter.FaultOrder, Err: errors.New("no such parent")}, 500, "no such parent"},
		{"no time", context.DeadlineExceeded, 503, "deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := newServer(t, newHandler(t, &memory{err: tt.err}, serve.Config{RetryAfter: 1500 * time.Millisecond}))
			a := send(t, server.URL, "{}", binary("fine", "1")...)
			a.want(t, tt.status, tt.says)
			if got := a.header.Get("Retry-After"); tt.status == 503 && got != "2" {
				t.Errorf("Retry-After is %q, want 2", got)
			}
		})
	}
}

type panicky struct{}

func (panicky) Commit(context.Context, sinkwriter.Offer) (sinkwriter.Receipt, error) {
	panic("a secret")
}

func (panicky) CommitAll(context.Context, []sinkwriter.Offer) []sinkwriter.Outcome { panic("a secret") }

func TestCommitterThatPanicsIsAnswered(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, panicky{}, serve.Config{}))
	send(t, server.URL, "{}", binary("fine", "1")...).want(t, 500, "panic: a secret")
	one := `{"specversion":"1.0","id":"7","source":"/tests","type":"fine"}`
	send(t, server.URL, "["+one+"]", batchType).want(t, 500, "event 1 of 1 (id \"7\"): 500 panic: a secret")
}

func TestLogSaysWhatTheRuntimePanickedWith(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	var none map[string]int
	h, err := serve.New([]functions.Function{function("forgets", func(context.Context, event.Event) (functions.Effects, error) {
		none["key"]++
		return functions.Effects{}, nil
	})}, &memory{}, serve.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	postBatch(t, h, []string{member("forgets", 1)})
	if want := "panic: assignment to entry in nil map"; !strings.Contains(out.String(), want) {
		t.Errorf("log is %s, want %q in it", &out, want)
	}
}

func TestLogHasTheStackOfAPanicAndNoData(t *testing.T) {
	t.Parallel()

	var out bytes.Buffer
	h := newHandler(t, &memory{}, serve.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("a secret"))
	for _, header := range binary("panics", "1") {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	h.ServeHTTP(httptest.NewRecorder(), req)
	for _, want := range []string{"level=ERROR", `msg="function failed on an event`, "function=panics", "event_source=/tests", "event_id=1", "panic with a string", "serve_test.some"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("log has what the function panicked with:\n%s", out.String())
	}
}

func TestLogLeavesOutWhatRepeats(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := newHandler(t, &memory{err: errors.New("no database")}, serve.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		for range 100 {
			post(t, h, "fine")
		}
		time.Sleep(2 * time.Second)
		post(t, h, "fine")
		if lines := strings.Count(out.String(), "\n"); lines != 11 {
			t.Errorf("log has %d lines, want 11", lines)
		}
		if !strings.Contains(out.String(), "left_out=90") {
			t.Errorf("log does not say how many it left out:\n%s", out.String())
		}
	})
}

func TestOtherMethodsAndPathsAreNotTheEventsFault(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, &memory{}, serve.Config{}))
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := do(t, req)
		a.want(t, 405, "send events with POST")
		if got := a.header.Get("Allow"); got != "OPTIONS, POST" {
			t.Errorf("Allow is %q", got)
		}
	}
	send(t, server.URL+"/elsewhere", "{}", binary("fine", "1")...).want(t, 404, "send events to /")
	send(t, server.URL+"/dead-letters", "{}", binary("fine", "1")...).want(t, 404, "send events to /")
}

func TestWebHookHandshakeIsAnswered(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, &memory{}, serve.Config{}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("WebHook-Request-Origin", "sender.example.com")
	req.Header.Set("WebHook-Request-Rate", "120")
	a := do(t, req)
	if a.status != 200 || a.header.Get("WebHook-Allowed-Origin") != "*" || a.header.Get("WebHook-Allowed-Rate") != "*" || a.header.Get("Allow") != "OPTIONS, POST" {
		t.Errorf("answer is %d with headers %v", a.status, a.header)
	}
}

// authorizer accepts requests by a header.
type authorizer struct{}

func (authorizer) Authorize(_ context.Context, header http.Header) error {
	switch header.Get("Authorization") {
	case "":
		return &serve.DeniedError{Err: errors.New("no token")}
	case "friend":
		return nil
	case "foe":
		return fmt.Errorf("look: %w", &serve.DeniedError{Forbidden: true, Err: errors.New("not you")})
	}
	return errors.New("no keys")
}

func TestGateLetsInWhomItKnows(t *testing.T) {
	t.Parallel()

	for _, path := range []string{"/", "/dead-letters"} {
		m, s := &memory{}, &shelf{}
		server := newServer(t, newHandler(t, m, serve.Config{Authorizer: authorizer{}, DeadLetters: s, MaxBytes: 1024}))
		body := strings.Repeat(" ", 2000) // not parsed
		a := send(t, server.URL+path, body)
		a.want(t, 401, "no token")
		if got := a.header.Get("WWW-Authenticate"); got != "Bearer" {
			t.Errorf("WWW-Authenticate is %q, want Bearer", got)
		}
		send(t, server.URL+path, body, "authorization: foe").want(t, 403, "look: not you")
		send(t, server.URL+path, body, "authorization: who").want(t, 503, "no keys")
		send(t, server.URL+path, "{}", append(binary("fine", "1"), "authorization: friend")...).want(t, 204, "")
		if m.committed()+len(s.letters) != 1 {
			t.Errorf("%d events are committed and %d dead letters kept, want one", m.committed(), len(s.letters))
		}

		// The handshake is no authorization (web hooks 1.0.2, section 4).
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a := do(t, req); a.status != 200 {
			t.Errorf("the handshake is answered %d", a.status)
		}
	}
}

// post passes an event of a type to h, without a network.
func post(tb testing.TB, h http.Handler, eventType string) *httptest.ResponseRecorder {
	tb.Helper()

	return postEvent(tb.Context(), tb, h, eventType, "1")
}

// postEvent passes an event with a type and an id to h, without a network.
func postEvent(ctx context.Context, tb testing.TB, h http.Handler, eventType, id string) *httptest.ResponseRecorder {
	tb.Helper()

	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("{}"))
	for _, header := range binary(eventType, id) {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestFunctionThatIgnoresItsContextIsLeftBehind(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h, err := serve.New([]functions.Function{function("stubborn", func(context.Context, event.Event) (functions.Effects, error) {
			<-release
			return functions.Effects{}, nil
		})}, &memory{}, serve.Config{MaxStuck: 3})
		if err != nil {
			t.Fatal(err)
		}

		begin := time.Now()
		var requests sync.WaitGroup
		for i := range 3 {
			requests.Go(func() {
				if w := postEvent(t.Context(), t, h, "stubborn", fmt.Sprint(i)); w.Code != 500 || !strings.Contains(w.Body.String(), "not done within 20s") {
					t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
				}
			})
		}
		requests.Wait()
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("the answers took %s, want 20s", took)
		}

		// A retry of the stuck event fails at once, and other events are computed.
		if w := postEvent(t.Context(), t, h, "stubborn", "1"); w.Code != 500 || !strings.Contains(w.Body.String(), "still runs") {
			t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("the retry of a stuck event took %s, want nothing", took-20*time.Second)
		}
		if h.Alive() == nil {
			t.Error("Alive reports nothing")
		}
		for i := 3; i < 3*16; i++ {
			requests.Go(func() {
				if w := postEvent(t.Context(), t, h, "stubborn", fmt.Sprint(i)); w.Code != 500 {
					t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
				}
			})
		}
		requests.Wait()

		// With 16 times as many as allowed, no other call begins.
		if w := postEvent(t.Context(), t, h, "stubborn", "new"); w.Code != 503 || !strings.Contains(w.Body.String(), "48 calls of functions ignored their deadline") {
			t.Errorf("answer is %d %q, want 503", w.Code, w.Body)
		}
		close(release)
		synctest.Wait()
		if err := h.Alive(); err != nil {
			t.Errorf("all have ended, but Alive reports %v", err)
		}
		if w := post(t, h, "stubborn"); w.Code != 204 {
			t.Errorf("answer is %d %q, want 204", w.Code, w.Body)
		}
	})
}

func TestEventOfASenderThatLeavesIsCommittedAllTheSame(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		h, err := serve.New([]functions.Function{function("slow", func(ctx context.Context, _ event.Event) (functions.Effects, error) {
			return functions.Effects{}, pause(ctx, time.Second)
		})}, m, serve.Config{MaxStuck: 1})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("{}"))
		for _, header := range binary("slow", "1") {
			name, value, _ := strings.Cut(header, ": ")
			req.Header.Set(name, value)
		}
		h.ServeHTTP(httptest.NewRecorder(), req)
		if m.committed() != 1 {
			t.Errorf("%d events are committed, want 1", m.committed())
		}
		if err := h.Alive(); err != nil {
			t.Errorf("Alive reports %v", err)
		}
	})
}

func TestDeadlinesOfManyCallsAndCommitsAreKept(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, err := serve.New([]functions.Function{function("waits", func(ctx context.Context, e event.Event) (functions.Effects, error) {
			at, _ := ctx.Deadline()
			switch left := time.Until(at); {
			case left != 20*time.Second:
				t.Errorf("there are %s left, want 20s", left)
			case e.Subject() == "quick":
				return functions.Effects{}, nil
			}
			<-ctx.Done()
			return functions.Effects{}, ctx.Err()
		})}, hanging{}, serve.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var requests sync.WaitGroup
		for i := range 50 {
			requests.Go(func() {
				begin := time.Now()
				quick, want, status := i%2 == 0, 20*time.Second, 500
				req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("{}"))
				for _, header := range binary("waits", fmt.Sprint(i)) {
					name, value, _ := strings.Cut(header, ": ")
					req.Header.Set(name, value)
				}
				if quick { // and then its commit hangs
					want, status = 8*time.Second, 503
					req.Header.Set("Ce-Subject", "quick")
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, req)
				if took := time.Since(begin); took != want || w.Code != status {
					t.Errorf("answer %d is %d after %s, want %d after %s", i, w.Code, took, status, want)
				}
			})
			time.Sleep(700 * time.Millisecond)
		}
		requests.Wait()
		if err := h.Alive(); err != nil {
			t.Error(err)
		}
	})
}

// hanging is a committer without a database.
type hanging struct{}

func (hanging) Commit(ctx context.Context, _ sinkwriter.Offer) (sinkwriter.Receipt, error) {
	<-ctx.Done()
	return sinkwriter.Receipt{}, ctx.Err()
}

func (hanging) CommitAll(ctx context.Context, offers []sinkwriter.Offer) []sinkwriter.Outcome {
	<-ctx.Done()
	return make([]sinkwriter.Outcome, len(offers))
}

func TestFunctionThatEndsItsGoroutineIsAnswered(t *testing.T) {
	t.Parallel()

	h, err := serve.New([]functions.Function{function("exits", func(context.Context, event.Event) (functions.Effects, error) {
		runtime.Goexit()
		return functions.Effects{}, nil
	})}, &memory{}, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if w := post(t, h, "exits"); w.Code != 500 || !strings.Contains(w.Body.String(), "the goroutine ended") {
		t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
	}
}

func TestFunctionThatChangesItsEventChangesNothing(t *testing.T) {
	t.Parallel()

	m := &memory{}
	h, err := serve.New([]functions.Function{function("changes", func(_ context.Context, e event.Event) (functions.Effects, error) {
		e.SetID("other")
		e.SetSource("/other")
		e.SetExtension("tenant", "other")
		return functions.Effects{}, nil
	})}, m, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	send(t, newServer(t, h).URL, "{}", append(binary("changes", "1"), "ce-tenant: acme")...).want(t, 204, "")
	e, ok := m.events[[2]string{"/tests", "1"}]
	if !ok || e.Extensions()["tenant"] != "acme" {
		t.Errorf("committed are %v", m.events)
	}
}

func TestDrainFinishesWhatRunsAndTakesNothingNew(t *testing.T) {
	t.Parallel()

	entered, release := make(chan struct{}), make(chan struct{})
	h, err := serve.New([]functions.Function{function("slow", func(context.Context, event.Event) (functions.Effects, error) {
		close(entered)
		<-release
		return functions.Effects{}, nil
	})}, &memory{}, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(t, h)
	first := make(chan answer, 1)
	go func() { first <- send(t, server.URL, "{}", binary("slow", "1")...) }()
	<-entered

	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain with a request under way returned %v", err)
	}
	refused := send(t, server.URL, "{}", binary("slow", "2")...)
	refused.want(t, 503, "shutting down")
	close(release)
	finished := <-first
	if finished.status != 204 {
		t.Errorf("the request under way was answered %d %q", finished.status, finished.body)
	}
	for _, a := range []answer{refused, finished} {
		if a.header.Get(outcome.DrainingHeader) == "" {
			t.Errorf("the answer %d does not state that the process shuts down", a.status)
		}
	}
	if err := h.Drain(t.Context()); err != nil {
		t.Errorf("Drain again: %v", err)
	}
}

func TestAnswersOfAServerThatShutsDownStateIt(t *testing.T) {
	t.Parallel()

	entered, release := make(chan struct{}), make(chan struct{})
	h, err := serve.New([]functions.Function{function("slow", func(_ context.Context, e event.Event) (functions.Effects, error) {
		if e.ID() == "2" {
			close(entered)
			<-release
		}
		return functions.Effects{}, nil
	})}, &memory{}, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(t, h)
	if a := send(t, server.URL, "{}", binary("slow", "1")...); a.header.Get(outcome.DrainingHeader) != "" {
		t.Error("an answer states that the process shuts down, which it does not")
	}
	answers := make(chan answer, 1)
	go func() { answers <- send(t, server.URL, "{}", binary("slow", "2")...) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- server.Config.Shutdown(t.Context()) }()
	for !h.IsDraining() {
		if t.Context().Err() != nil {
			t.Fatal("the shutdown of the server was not noticed")
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	if a := <-answers; a.status != 204 || a.header.Get(outcome.DrainingHeader) == "" {
		t.Errorf("the answer is %d, header %v", a.status, a.header)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestNewRefusesWhatCannotBeServed(t *testing.T) {
	t.Parallel()

	twice := func(name string) functions.Function {
		f := function("fine", func(context.Context, event.Event) (functions.Effects, error) { return functions.Effects{}, nil })
		f.Name = name
		return f
	}
	tests := []struct {
		name      string
		functions []functions.Function
		committer serve.Committer
		config    serve.Config
		says      string
	}{
		{"no functions", nil, &memory{}, serve.Config{}, "the list is empty"},
		{"no committer", some(), nil, serve.Config{}, "the committer is missing"},
		{"function without a name", []functions.Function{{}}, &memory{}, serve.Config{}, `name "": want`},
		{"one name twice", []functions.Function{twice("a"), twice("a")}, &memory{}, serve.Config{}, "two functions are named a"},
		{"one type twice", []functions.Function{twice("a"), twice("b")}, &memory{}, serve.Config{}, `a and b both have event type "fine"`},
		{"limit too small", some(), &memory{}, serve.Config{MaxBytes: 1}, "MaxBytes is 1: want 1 KiB to 64 MiB"},
		{"no answer before the server gives up", some(), &memory{}, serve.Config{CommitTimeout: 20 * time.Second}, "CommitTimeout is 20s"},
		{"deadline too long", some(), &memory{}, serve.Config{Deadline: time.Minute}, "deadline is 1m0s: want 10ms to 25s"},
		{"retry at once", some(), &memory{}, serve.Config{RetryAfter: time.Millisecond}, "RetryAfter is 1ms"},
		{"batches of nothing", some(), &memory{}, serve.Config{MaxConcurrent: -1}, "MaxConcurrent is -1"},
		{"nothing may be stuck", some(), &memory{}, serve.Config{MaxStuck: -1}, "MaxStuck is -1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if _, err := serve.New(tt.functions, tt.committer, tt.config); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error is %v, want it to say %q", err, tt.says)
			}
		})
	}
}
