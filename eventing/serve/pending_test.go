package serve_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
)

// naps is a function that follows an event's subject: it sleeps for a duration, and
// then succeeds, panics, ends its goroutine or ignores its deadline.
type naps struct {
	mu     sync.Mutex
	called map[string]int // calls of each id
	runs   map[string]int // current ones
	most   int            // the maximum of concurrent computations of one event
}

func (n *naps) handle(ctx context.Context, e event.Event) (functions.Effects, error) {
	n.mu.Lock()
	n.called[e.ID()]++
	n.runs[e.ID()]++
	n.most = max(n.most, n.runs[e.ID()])
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		n.runs[e.ID()]--
		n.mu.Unlock()
	}()
	text, then, _ := strings.Cut(e.Subject(), " ")
	length, err := time.ParseDuration(text)
	if err != nil {
		return functions.Effects{}, err
	}
	if then == "deaf" {
		ctx = context.Background()
	}
	if length > 0 {
		if err := pause(ctx, length); err != nil {
			return functions.Effects{}, err
		}
	}
	switch then {
	case "panic":
		panic("a secret")
	case "exit":
		runtime.Goexit()
	case "reject":
		return functions.Effects{}, functions.Reject(errors.New("unwanted"))
	}
	return functions.Effects{}, nil
}

func (n *naps) calls(id int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.called[strconv.Itoa(id)]
}

// nap returns a member of a batch for naps.
func nap(id int, subject string) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/tests","type":"naps","subject":"%s"}`, id, subject)
}

// postNap passes a single event for naps to h, without a network.
func postNap(ctx context.Context, tb testing.TB, h http.Handler, id int, subject string) *httptest.ResponseRecorder {
	tb.Helper()

	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(nap(id, subject)))
	req.Header.Set("Content-Type", "application/cloudevents+json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// napHandler returns a handler for naps.
func napHandler(tb testing.TB, m serve.Committer, config serve.Config) (*serve.Handler, *naps) {
	tb.Helper()

	n := &naps{called: map[string]int{}, runs: map[string]int{}}
	h, err := serve.New([]functions.Function{function("naps", n.handle)}, m, config)
	if err != nil {
		tb.Fatal(err)
	}
	return h, n
}

// kindsOf returns a word for each outcome.
func kindsOf(outcomes []outcome.Outcome) string {
	words := make([]string, len(outcomes))
	for i, o := range outcomes {
		words[i] = o.Kind.String()
		if o.Kind == outcome.Committed {
			words[i] = "lost"
			if o.Won {
				words[i] = "won"
			}
		}
	}
	return strings.Join(words, " ")
}

// wantOutcomes sends a batch, and checks the outcomes and the time of the answer.
func wantOutcomes(t *testing.T, h *serve.Handler, want string, after time.Duration, members ...string) []outcome.Outcome {
	t.Helper()

	begin := time.Now()
	_, outcomes := postForOutcomes(t.Context(), t, h, members...)
	if took := time.Since(begin); took != after {
		t.Errorf("the outcomes of %s took %s, want %s", members, took, after)
	}
	if got := kindsOf(outcomes); got != want {
		t.Errorf("the outcomes of %s are %s, want %s", members, got, want)
	}
	return outcomes
}

func TestSlowEventDoesNotDelayTheOthersOfItsBatch(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		h, n := napHandler(t, m, serve.Config{})
		members := make([]string, 64)
		for i := range members {
			members[i] = nap(i, "0s")
		}
		members[7] = nap(7, "1s")
		begin := time.Now()
		status, outcomes := postForOutcomes(t.Context(), t, h, members...)
		if took := time.Since(begin); took != 5*time.Millisecond || status != 200 {
			t.Errorf("answer is %d after %s, want 200 after 5ms", status, took)
		}
		want := strings.Repeat("won ", 7) + "pending" + strings.Repeat(" won", 56)
		if got := kindsOf(outcomes); got != want {
			t.Errorf("outcomes are %s", got)
		}
		if m.committed() != 63 {
			t.Errorf("%d events are committed, want 63", m.committed())
		}

		// The retry shares the computation.
		w := postNap(t.Context(), t, h, 7, "1s")
		if took := time.Since(begin); took != time.Second || w.Code != 204 || w.Header().Get("Tandem-Receipt") != "won" {
			t.Errorf("the retry is answered %d %v after %s, want 204 and won after 1s", w.Code, w.Header(), took)
		}
		if calls := n.calls(7); calls != 1 {
			t.Errorf("the slow event was computed %d times", calls)
		}
		if err := h.Drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRestOfABatchHasAGraceOfTheTimeThatMostTook(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, _ := napHandler(t, &memory{}, serve.Config{})
		wantOutcomes(t, h, "won won won won pending", 80*time.Millisecond,
			nap(1, "40ms"), nap(2, "40ms"), nap(3, "30ms"), nap(4, "70ms"), nap(5, "100ms"))
		wantOutcomes(t, h, "won won", 100*time.Millisecond, nap(6, "60ms"), nap(7, "100ms"))
		wantOutcomes(t, h, "won", time.Second, nap(8, "1s"))
		wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(9, "0s"), nap(10, "1s"))
		// An event that is decided at once counts.
		wantOutcomes(t, h, "rejected rejected pending", 5*time.Millisecond, `{}`, member("other", 1), nap(11, "1s"))
		time.Sleep(time.Minute)
	})
}

func TestGraceDoesNotPassWhileTheProcessIsFrozen(t *testing.T) {
	t.Parallel()

	const ms = time.Millisecond
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	next := serve.Countdown(5*ms, now)
	for i, step := range []struct{ elapsed, want time.Duration }{
		{0, ms},
		{ms, ms},
		{300 * ms, ms}, // frozen: counts as two ticks
		{ms / 2, ms},
		{ms, ms / 2},
		{ms / 2, 0},
	} {
		now = now.Add(step.elapsed)
		if got := next(now); got != step.want {
			t.Errorf("step %d: wait %s, want %s", i, got, step.want)
		}
	}
}

func TestRetryOfAPendingEventHasItsOutcomeWhateverThatIs(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, subject string
		kind          string
		after         time.Duration
		reason        string
	}{
		{"committed", "1s", "won", time.Second, ""},
		{"rejected", "1s reject", "rejected", time.Second, "function naps: unwanted"},
		{"panic", "1s panic", "failed", time.Second, "function naps: panic: a secret"},
		{"end of the goroutine", "1s exit", "failed", time.Second, "function naps: the goroutine ended"},
		{"deadline", "1m", "failed", 20 * time.Second, "function naps: not done within 20s"},
		{"deadline that is ignored", "1m deaf", "failed", 20 * time.Second, "function naps: not done within 20s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				h, n := napHandler(t, &memory{}, serve.Config{MaxStuck: 1})
				begin := time.Now()
				wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(1, "0s"), nap(2, tt.subject))
				wantOutcomes(t, h, "won pending", 0, nap(3, "0s"), nap(2, tt.subject))

				// Two retries share the computation; one of them is won.
				var mu sync.Mutex
				var kinds []string
				var retries sync.WaitGroup
				for range 2 {
					retries.Go(func() {
						_, got := postForOutcomes(t.Context(), t, h, nap(2, tt.subject))
						if took := time.Since(begin); took != tt.after || got[0].Reason != tt.reason {
							t.Errorf("the retry is answered %v after %s, want %q after %s", got[0], took, tt.reason, tt.after)
						}
						mu.Lock()
						defer mu.Unlock()
						kinds = append(kinds, kindsOf(got))
					})
				}
				retries.Wait()
				want := map[string]bool{tt.kind: true}
				if tt.kind == "won" {
					want["lost"] = true
				}
				if diff := cmp.Diff(want, map[string]bool{kinds[0]: true, kinds[1]: true}); diff != "" {
					t.Errorf("kinds (-want +got):\n%s", diff)
				}
				if calls := n.calls(2); calls != 1 {
					t.Errorf("computed %d times, want once", calls)
				}
				if deaf := strings.HasSuffix(tt.subject, "deaf"); deaf != (h.Alive() != nil) {
					t.Errorf("Alive returns %v", h.Alive())
				}
				time.Sleep(time.Minute)
				if err := h.Alive(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestOutcomeThatNobodyWaitedForIsKeptForAMinute(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, n := napHandler(t, &memory{}, serve.Config{MaxPending: 2})
		wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(1, "0s"), nap(2, "1s"))
		time.Sleep(30 * time.Second)
		wantOutcomes(t, h, "won", 0, nap(2, "1s"))
		if calls := n.calls(2); calls != 1 {
			t.Errorf("computed %d times, want once", calls)
		}
		wantOutcomes(t, h, "lost", time.Second, nap(2, "1s")) // the outcome was received

		wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(3, "0s"), nap(4, "1s"))
		time.Sleep(2 * time.Minute)
		wantOutcomes(t, h, "lost", time.Second, nap(4, "1s"))

		// Only the two latest are kept.
		for id := 10; id < 16; id += 2 {
			wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(id, "0s"), nap(id+1, "1s"))
			time.Sleep(2 * time.Second)
		}
		wantOutcomes(t, h, "lost", time.Second, nap(11, "1s"))
		wantOutcomes(t, h, "won won", 0, nap(13, "1s"), nap(15, "1s"))

		// The senders of these disconnect before their events are committed.
		for id, leave := range map[int]func(context.Context){
			20: func(ctx context.Context) { postNap(ctx, t, h, 20, "1s") },
			21: func(ctx context.Context) { postForOutcomes(ctx, t, h, nap(21, "1s")) },
			22: func(ctx context.Context) { postForOutcomes(ctx, t, h, nap(22, "1s"), nap(23, "1s")) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			leave(ctx)
			cancel()
			wantOutcomes(t, h, "won", 0, nap(id, "1s"))
		}
	})
}

func TestOutcomeThatAnotherAttemptCanChangeIsNotKept(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		m := &memory{err: errors.New("no database")}
		h, n := napHandler(t, m, serve.Config{})
		wantOutcomes(t, h, "unavailable pending", 5*time.Millisecond, nap(1, "0s"), nap(2, "1s"))
		time.Sleep(2 * time.Second)
		m.mu.Lock()
		m.err = nil
		m.mu.Unlock()
		wantOutcomes(t, h, "won", time.Second, nap(2, "1s"))
		if calls := n.calls(2); calls != 2 {
			t.Errorf("computed %d times, want twice", calls)
		}
	})
}

func TestEqualEventsAreComputedOnce(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, n := napHandler(t, &memory{}, serve.Config{})
		wantOutcomes(t, h, "won lost lost", 10*time.Millisecond, nap(1, "10ms"), nap(1, "10ms"), nap(1, "10ms"))
		wantOutcomes(t, h, "rejected rejected", 10*time.Millisecond, nap(2, "10ms reject"), nap(2, "10ms reject"))
		wantOutcomes(t, h, "won pending pending", 5*time.Millisecond, nap(3, "0s"), nap(4, "1s"), nap(4, "1s"))

		// Two requests of each kind.
		var requests sync.WaitGroup
		var mu sync.Mutex
		var receipts strings.Builder
		for i := range 6 {
			requests.Go(func() {
				var receipt string
				if i%2 == 0 {
					receipt = postBatch(t, h, []string{nap(5, "1s"), nap(6, "1s")}).Header().Get("Tandem-Receipts")
				} else {
					_, outcomes := postForOutcomes(t.Context(), t, h, nap(5, "1s"), nap(6, "1s"))
					receipt = strings.NewReplacer("won", "w", "lost", "l", " ", "").Replace(kindsOf(outcomes))
				}
				mu.Lock()
				defer mu.Unlock()
				receipts.WriteString(receipt)
			})
		}
		requests.Wait()
		if won := strings.Count(receipts.String(), "w"); won != 2 || receipts.Len() != 12 {
			t.Errorf("receipts are %s, want two that were won of twelve", &receipts)
		}
		for id := range 7 {
			if calls := n.calls(id); id > 0 && calls != 1 {
				t.Errorf("event %d was computed %d times", id, calls)
			}
		}
		time.Sleep(time.Minute)
	})
}

func TestEventsThatHaveNotBegunArePending(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		h, n := napHandler(t, m, serve.Config{MaxConcurrent: 1})
		begin := time.Now()
		wantOutcomes(t, h, "won won pending pending", 5*time.Millisecond, nap(1, "0s"), nap(2, "0s"), nap(3, "1s"), nap(4, "0s"))
		if calls := n.calls(4); calls != 0 {
			t.Errorf("the last one was computed %d times already", calls)
		}
		w := postNap(t.Context(), t, h, 4, "0s")
		if took := time.Since(begin); took != time.Second || w.Header().Get("Tandem-Receipt") != "won" {
			t.Errorf("the retry is answered %d %q after %s, want won after 1s", w.Code, w.Body, took)
		}
		synctest.Wait()
		if m.committed() != 4 {
			t.Errorf("%d events are committed, want 4", m.committed())
		}

		// A call that ignores its deadline does not keep the next event from being
		// computed.
		begin = time.Now()
		wantOutcomes(t, h, "won won pending pending", 5*time.Millisecond, nap(11, "0s"), nap(12, "0s"), nap(13, "1m deaf"), nap(14, "1s"))
		w = postNap(t.Context(), t, h, 14, "1s")
		if took := time.Since(begin); took != 20*time.Second+slack+5*time.Millisecond || w.Code != 503 {
			t.Errorf("the retry of an event that waits is answered %d %q after %s", w.Code, w.Body, took)
		}
		wantOutcomes(t, h, "won", 21*time.Second-time.Since(begin), nap(14, "1s"))
		time.Sleep(time.Minute)
		for id, want := range map[int]int{4: 1, 13: 1, 14: 1} {
			if calls := n.calls(id); calls != want {
				t.Errorf("event %d was computed %d times, want %d", id, calls, want)
			}
		}
	})
}

func TestPendingEventsAreBounded(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, _ := napHandler(t, &memory{}, serve.Config{MaxPending: 1})
		wantOutcomes(t, h, "won pending", 5*time.Millisecond, nap(1, "0s"), nap(2, "1s"))
		got := wantOutcomes(t, h, "unavailable unavailable pending", 0, nap(3, "0s"), nap(4, "0s"), nap(2, "1s"))
		if want := "busy: 1 events of batches that are answered are still being computed"; got[0].Reason != want || got[0].Status != 503 {
			t.Errorf("outcome is %+v, want 503 %q", got[0], want)
		}
		wantOutcomes(t, h, "won", 0, nap(5, "0s")) // a single event is never pending
		time.Sleep(2 * time.Second)
		wantOutcomes(t, h, "won won won", 0, nap(3, "0s"), nap(4, "0s"), nap(2, "1s"))
	})
}

func TestDrainWaitsForPendingEvents(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		h, _ := napHandler(t, m, serve.Config{})
		wantOutcomes(t, h, "won won pending pending", 5*time.Millisecond, nap(0, "0s"), nap(1, "0s"), nap(2, "1s"), nap(3, "30s deaf"))
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := h.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain with pending events returned %v", err)
		}
		begin := time.Now()
		if err := h.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 20*time.Second-15*time.Millisecond {
			t.Errorf("Drain took %s, want 20s from the beginning", took)
		}
		if m.committed() != 3 {
			t.Errorf("%d events are committed, want 3", m.committed())
		}
		time.Sleep(time.Minute)
	})
}

func TestPanicOfTheCommitterForAPendingEventIsItsOutcome(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		h, _ := napHandler(t, panicky{}, serve.Config{})
		wantOutcomes(t, h, "failed pending", 5*time.Millisecond, nap(1, "0s"), nap(2, "1s"))
		time.Sleep(2 * time.Second)
		wantOutcomes(t, h, "failed", 0, nap(2, "1s"))
	})
}

// Many requests of all kinds, for few events: each event is computed once at a time, and
// no state is left.
func TestConcurrentRequestsShareComputations(t *testing.T) {
	t.Parallel()

	m := &memory{}
	h, n := napHandler(t, m, serve.Config{MaxConcurrent: 4})
	var senders sync.WaitGroup
	for range 16 {
		senders.Go(func() {
			for range 30 {
				members := make([]string, 1+rand.IntN(20))
				for i := range members {
					id := rand.IntN(40)
					members[i] = nap(id, fmt.Sprintf("%dms", id%4*5))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(40))*time.Millisecond)
				if rand.IntN(2) == 0 {
					postForOutcomes(ctx, t, h, members...)
				} else {
					postBatch(t, h, members)
				}
				cancel()
			}
		})
	}
	senders.Wait()
	if err := h.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.committed() != 40 {
		t.Errorf("%d events are committed, want 40", m.committed())
	}
	if n.most != 1 {
		t.Errorf("an event was computed %d times at the same time", n.most)
	}
	if late, calls := serve.Left(h); late != 0 || calls != 0 {
		t.Errorf("%d late calls and %d computations are left", late, calls)
	}
}
