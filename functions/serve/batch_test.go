package serve_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/serve"
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
		{"one rejected", "[" + member("fine", 1) + "," + member("rejects", 2) + "]", 422, []string{"event 1: 422 function rejects: origin: missing"}, 1},
		{"one that is not valid", "[" + member("fine", 1) + ",{}]", 422, []string{"event 1: 422 this is no valid CloudEvent: specversion: missing"}, 1},
		{"one broke its function, which counts for more", "[" + member("rejects", 1) + "," + member("fails", 2) + "," + member("other", 3) + "]", 500, []string{"event 0: 422", "event 1: 500", "event 2: 422"}, 0},
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
	a := send(t, newServer(t, newHandler(t, &memory{}, serve.Config{MaxBytes: 2 << 20})).URL, "["+strings.Join(members, ",")+"]", batchType)
	if lines := strings.Count(a.body, "\n"); lines != 33 || !strings.HasSuffix(a.body, "and 968 more of 1000 events\n") {
		t.Errorf("answer has %d lines, and ends in %q", lines, a.body[len(a.body)-40:])
	}
	if len(a.body) > 40<<10 {
		t.Errorf("answer has %d bytes", len(a.body))
	}
}

func TestBatchIsWorkedOnConcurrently(t *testing.T) {
	t.Parallel()

	// Every call waits for all others: one after the other, none would end.
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
