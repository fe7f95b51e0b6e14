package serve_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const batchType = "content-type: application/cloudevents-batch+json"

func member(eventType string, id int) string {
	return fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/tests","type":"%s","data":{"a":[1,"]"]}}`, id, eventType)
}

func TestBatchIsAnsweredWith2xxOnlyIfAllIsCommitted(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name      string
		body      string
		status    int
		says      []string
		committed int
	}{
		{"all fine", " [ " + member("fine", 1) + " , " + member("fine", 2) + " ] ", 204, nil, 2},
		{"nothing in it", "[]", 204, nil, 0},
		{"one rejected", "[" + member("fine", 1) + "," + member("rejects", 2) + "]", 422, []string{"event 2 of 2 (id \"2\"): 422 function rejects: origin: missing"}, 1},
		{"one that is not valid", "[" + member("fine", 1) + ",{}]", 422, []string{"event 2 of 2: 422 this is not a valid CloudEvent: specversion: missing"}, 1},
		{"one broke its function, which counts for more", "[" + member("rejects", 1) + "," + member("fails", 2) + "," + member("other", 3) + "]", 500, []string{"event 1 of 3 (id \"1\"): 422", "event 2 of 3 (id \"2\"): 500", "event 3 of 3 (id \"3\"): 422"}, 0},
		{"no array", member("fine", 1), 400, []string{"want a JSON array"}, 0},
		{"broken array", "[" + member("fine", 1), 400, []string{"it is not JSON"}, 0},
		{"element that is no object", "[" + member("fine", 1) + ",5]", 400, []string{"element 1 is not an object"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			m := &memory{}
			a := send(t, newServer(t, newHandler(t, m, serve.Config{})).URL, tt.body, batchType)
			if a.status != tt.status {
				t.Errorf("answer is %d %q, want %d", a.status, a.body, tt.status)
			}
			lines := strings.Split(strings.TrimSpace(a.body), "\n")
			if len(tt.says) > 0 && len(lines) != len(tt.says) {
				t.Errorf("answer has %d lines, want %d: %q", len(lines), len(tt.says), a.body)
			}
			for i, says := range tt.says {
				if !strings.Contains(lines[i], says) {
					t.Errorf("line %d is %q, want it to say %q", i, lines[i], says)
				}
			}
			if m.committed() != tt.committed {
				t.Errorf("%d events are committed, want %d", m.committed(), tt.committed)
			}
			if got, want := a.header.Get("Tandem-Receipts"), strings.Repeat("w", tt.committed); tt.status == 204 && got != want {
				t.Errorf("receipts %q, want %q", got, want)
			}
			if want := min(tt.committed, 1); m.batches != want {
				t.Errorf("the committer was called %d times, want %d", m.batches, want)
			}
		})
	}
}

func TestBatchIsTriedAgainIfTheSurroundingsFailedOneEvent(t *testing.T) {
	t.Parallel()

	a := send(t, newServer(t, newHandler(t, &memory{err: context.DeadlineExceeded}, serve.Config{})).URL,
		"["+member("fine", 1)+","+member("rejects", 2)+"]", batchType)
	if a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("answer is %d with %v, want 503 and Retry-After", a.status, a.header)
	}
}

func TestBatchThatIsAllWrongGetsAShortAnswer(t *testing.T) {
	t.Parallel()

	members := make([]string, 1000)
	for i := range members {
		members[i] = member(strings.Repeat("x", 900), i)
	}
	a := send(t, newServer(t, newHandler(t, &memory{}, serve.Config{MaxBytes: 2 << 20, MaxBatch: 1000})).URL, "["+strings.Join(members, ",")+"]", batchType)
	if lines := strings.Count(a.body, "\n"); lines != 33 || !strings.HasSuffix(a.body, "and 968 more of 1000 events\n") {
		t.Errorf("answer has %d lines, and ends in %q", lines, a.body[len(a.body)-40:])
	}
	if len(a.body) > 40<<10 {
		t.Errorf("answer has %d bytes", len(a.body))
	}
}

func TestBatchIsWorkedOnConcurrently(t *testing.T) {
	t.Parallel()

	// Every call waits for all others: if they ran one after the other, none would end.
	var all sync.WaitGroup
	all.Add(100)
	h, err := serve.New([]functions.Function{function("meets", func(ctx context.Context, _ event.Event) (functions.Effects, error) {
		all.Done()
		all.Wait()
		return functions.Effects{}, nil
	})}, &memory{}, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	members := make([]string, 100)
	for i := range members {
		members[i] = member("meets", i)
	}
	send(t, newServer(t, h).URL, "["+strings.Join(members, ",")+"]", batchType).want(t, 204, "")
}

// slack is the time by which a batch outlives the deadline of calls that began with it.
const slack = 50 * time.Millisecond

func TestBatchIsAnsweredInTimeWhateverItsFunctionsDo(t *testing.T) {
	t.Parallel()

	sleepy := func(ctx context.Context, e event.Event) (functions.Effects, error) {
		var seconds int
		if err := e.DataAs(&seconds); err != nil {
			return functions.Effects{}, err
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
			return functions.Effects{}, nil
		case <-ctx.Done():
			return functions.Effects{}, ctx.Err()
		}
	}
	deaf := func(_ context.Context, e event.Event) (functions.Effects, error) {
		return sleepy(context.Background(), e)
	}
	tests := []struct {
		name       string
		handle     functions.Func
		concurrent int
		seconds    []int
		after      time.Duration
		status     int
		says       []string
		committed  int // at the time of the answer
		finally    int
	}{
		{"nothing in it", sleepy, 0, nil, 0, 204, nil, 0, 0},
		{"all at once", sleepy, 0, []int{15, 15, 15}, 15 * time.Second, 204, nil, 3, 3},
		{"one takes too long", sleepy, 0, []int{1, 25, 1}, 20 * time.Second, 500, []string{"event 2 of 3 (id \"1\"): 500 function naps: not done within 20s"}, 2, 2},
		{"one is deaf", deaf, 0, []int{1, 25, 1}, 20 * time.Second, 500, []string{"event 2 of 3 (id \"1\"): 500 function naps: not done within 20s"}, 2, 2},
		{
			"one after the other", sleepy, 1,
			[]int{15, 15, 1},
			20*time.Second + slack, 503,
			[]string{"event 2 of 3 (id \"1\"): 503 not done in the time", "event 3 of 3 (id \"2\"): 503 not done in the time"},
			1, 3,
		},
		{
			"one after the other, deaf", deaf, 1,
			[]int{15, 25, 1},
			20*time.Second + slack, 503,
			[]string{"event 2 of 3 (id \"1\"): 503 not done in the time", "event 3 of 3 (id \"2\"): 503 not done in the time"},
			1, 2,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				h, err := serve.New([]functions.Function{function("naps", tt.handle)}, m, serve.Config{MaxConcurrent: tt.concurrent})
				if err != nil {
					t.Fatal(err)
				}
				members := make([]string, len(tt.seconds))
				for i, seconds := range tt.seconds {
					members[i] = fmt.Sprintf(`{"specversion":"1.0","id":"%d","source":"/tests","type":"naps","data":%d}`, i, seconds)
				}
				begin := time.Now()
				w := postBatch(t, h, members)
				if took := time.Since(begin); took != tt.after {
					t.Errorf("the answer took %s, want %s", took, tt.after)
				}
				if w.Code != tt.status || strings.Count(w.Body.String(), "\n") != len(tt.says) {
					t.Errorf("answer is %d %q, want %d and %d lines", w.Code, w.Body, tt.status, len(tt.says))
				}
				for _, says := range tt.says {
					if !strings.Contains(w.Body.String(), says) {
						t.Errorf("answer is %q, want it to say %q", w.Body, says)
					}
				}
				if m.committed() != tt.committed {
					t.Errorf("%d events are committed, want %d", m.committed(), tt.committed)
				}
				time.Sleep(time.Minute) // the calls that ignore their deadline end
				if err := h.Alive(); err != nil {
					t.Error(err)
				}
				if m.committed() != tt.finally {
					t.Errorf("%d events are committed in the end, want %d", m.committed(), tt.finally)
				}
			})
		})
	}
}

// postBatch passes a batch to h, without a network.
func postBatch(tb testing.TB, h http.Handler, members []string) *httptest.ResponseRecorder {
	tb.Helper()

	req := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/", strings.NewReader("["+strings.Join(members, ",")+"]"))
	req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestFunctionsThatAreLeftBehindInABatchAreCounted(t *testing.T) {
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
		batch := []string{member("stubborn", 1), member("stubborn", 2), member("stubborn", 3)}
		if w := postBatch(t, h, batch); w.Code != 500 {
			t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
		}
		if h.Alive() == nil {
			t.Error("Alive reports nothing")
		}
		if w := postBatch(t, h, batch[:1]); w.Code != 500 || !strings.Contains(w.Body.String(), "still runs") {
			t.Errorf("answer is %d %q, want 500", w.Code, w.Body)
		}
		close(release)
		synctest.Wait()
		if err := h.Alive(); err != nil {
			t.Errorf("all have ended, but Alive reports %v", err)
		}
		if w := postBatch(t, h, batch); w.Code != 204 {
			t.Errorf("answer is %d %q, want 204", w.Code, w.Body)
		}
	})
}

func TestOneEventOfABatchThatBreaksItsFunctionBreaksNoOther(t *testing.T) {
	t.Parallel()

	h, err := serve.New(append(some(), function("exits", func(context.Context, event.Event) (functions.Effects, error) {
		runtime.Goexit()
		return functions.Effects{}, nil
	})), &memory{}, serve.Config{MaxConcurrent: 1})
	if err != nil {
		t.Fatal(err)
	}
	w := postBatch(t, h, []string{member("panics", 1), member("fine", 2), member("exits", 3), member("exits", 4), member("fine", 5)})
	want := "event 1 of 5 (id \"1\"): 500 function panics: panic: a secret\n" +
		"event 3 of 5 (id \"3\"): 500 function exits: the goroutine ended\n" +
		"event 4 of 5 (id \"4\"): 500 function exits: the goroutine ended\n"
	if w.Code != 500 || w.Body.String() != want {
		t.Errorf("answer is %d %q, want 500 %q", w.Code, w.Body, want)
	}
}

// silent is a committer that returns no outcomes.
type silent struct{ memory }

func (*silent) CommitAll(context.Context, []sinkwriter.Offer) []sinkwriter.Outcome { return nil }

func TestBatchWithoutOutcomesIsNotCommitted(t *testing.T) {
	t.Parallel()

	w := postBatch(t, newHandler(t, &silent{}, serve.Config{}), []string{member("fine", 1), member("fine", 2)})
	if w.Code != 503 {
		t.Errorf("answer is %d %q, want 503", w.Code, w.Body)
	}
}
