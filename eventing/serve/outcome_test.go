package serve_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

const memorysDigest = "ab000000000000000000000000000000"

// postForOutcomes passes a batch to h, and requests an outcome for each event.
func postForOutcomes(ctx context.Context, tb testing.TB, h http.Handler, members ...string) (status int, outcomes []outcome.Outcome) {
	tb.Helper()

	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader("["+strings.Join(members, ",")+"]"))
	req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	req.Header.Set("Accept", "text/plain, Application/vnd.tandem.outcomes+json;q=1")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if got := w.Header().Get("Content-Type"); got != outcome.OutcomesType {
		tb.Errorf("content type of the answer is %q: %d %s", got, w.Code, w.Body)
	}
	outcomes, err := outcome.Parse(w.Body.Bytes(), len(members))
	if err != nil {
		tb.Errorf("answer is %d %q: %v", w.Code, w.Body, err)
	}
	return w.Code, outcomes
}

func TestEachEventOfABatchHasAnOutcomeIfTheSenderAsks(t *testing.T) {
	t.Parallel()

	won := outcome.Outcome{Kind: outcome.Committed, Status: 204, Won: true, Digest: memorysDigest}
	lost := outcome.Outcome{Kind: outcome.Committed, Status: 204, Digest: memorysDigest}
	tests := []struct {
		name    string
		err     error
		members []string
		status  int
		want    []outcome.Outcome
	}{
		{"nothing in it", nil, nil, 200, []outcome.Outcome{}},
		{"all committed", nil, []string{member("fine", 1), member("fine", 2), member("fine", 0)}, 200, []outcome.Outcome{won, won, lost}},
		{
			"each its own", nil,
			[]string{member("fine", 1), member("rejects", 2), `{}`, member("fails", 3), member("other", 4), member("fine", 5)},
			500,
			[]outcome.Outcome{
				won,
				{Kind: outcome.Rejected, Status: 422, Reason: "function rejects: origin: missing"},
				{Kind: outcome.Rejected, Status: 422, Reason: "this is not a valid CloudEvent: specversion: missing"},
				{Kind: outcome.Failed, Status: 500, Reason: "function fails: division by zero in line 2"},
				{Kind: outcome.Rejected, Status: 422, Reason: `no function for event type "other"; the types are: fine, rejects, fails, panics, waits`},
				won,
			},
		},
		{
			"no database", errors.New("connection refused"),
			[]string{member("fine", 1), member("rejects", 2)},
			503,
			[]outcome.Outcome{
				{Status: 503, Reason: "connection refused", RetryAfter: 2 * time.Second},
				{Kind: outcome.Rejected, Status: 422, Reason: "function rejects: origin: missing"},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			// The clock of synctest does not advance while the function computes. On a
			// busy machine's clock, an event whose thread does not run for a few
			// milliseconds would be pending.
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				h := newHandler(t, m, serve.Config{RetryAfter: 2 * time.Second})
				if w := postBatch(t, h, []string{member("fine", 0)}); w.Code != 204 {
					t.Errorf("first event is answered %d %q, want 204", w.Code, w.Body)
				}
				m.err = tt.err
				status, got := postForOutcomes(t.Context(), t, h, tt.members...)
				if status != tt.status {
					t.Errorf("status %d, want %d", status, tt.status)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestSingleAnswerHasItsOutcomeInItsHeaders(t *testing.T) {
	t.Parallel()

	h := newHandler(t, &memory{}, serve.Config{})
	for _, tt := range []struct {
		eventType string
		want      outcome.Outcome
	}{
		{"fine", outcome.Outcome{Kind: outcome.Committed, Status: 204, Won: true, Digest: memorysDigest}},
		{"fine", outcome.Outcome{Kind: outcome.Committed, Status: 204, Digest: memorysDigest}},
		{"rejects", outcome.Outcome{Kind: outcome.Rejected, Status: 422}},
		{"fails", outcome.Outcome{Kind: outcome.Failed, Status: 500}},
	} {
		w := post(t, h, tt.eventType)
		if diff := cmp.Diff(tt.want, outcome.FromHTTP(w.Code, w.Header(), "")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.eventType, diff)
		}
		if got := w.Header().Get(outcome.OutcomeHeader); w.Code != 204 && got != tt.want.Kind.String() {
			t.Errorf("%s: header %q", tt.eventType, got)
		}
	}
	if w := post(t, newHandler(t, &memory{err: errors.New("no database")}, serve.Config{}), "fine"); w.Header().Get(outcome.OutcomeHeader) != "unavailable" {
		t.Errorf("503 has the headers %v", w.Header())
	}
}

func TestOnlyCommutingEffectsMayBeAppliedInAnyOrder(t *testing.T) {
	t.Parallel()

	key, row := functions.Row{"id": 1}, functions.Row{"n": 1}
	for _, tt := range []struct {
		name   string
		change func(*functions.Effects)
		class  string
	}{
		{"counter", func(fx *functions.Effects) { fx.Add("t", key, row) }, outcome.Commuting},
		{"newest wins", func(fx *functions.Effects) { fx.Upsert("t", row, functions.NewestWins("n")) }, outcome.Commuting},
		{"oldest wins", func(fx *functions.Effects) { fx.Upsert("t", row, functions.OldestWins("n")) }, outcome.Commuting},
		{"greatest and least", func(fx *functions.Effects) {
			fx.Upsert("t", row, functions.Max())
			fx.Upsert("t", row, functions.Min())
		}, outcome.Commuting},
		{"delete of a version", func(fx *functions.Effects) { fx.Delete("t", key, functions.Version{Column: "n", Value: 1}) }, outcome.Commuting},
		{"first wins", func(fx *functions.Effects) { fx.Insert("t", row) }, outcome.Inserting},
		{"last wins", func(fx *functions.Effects) { fx.Upsert("t", row, functions.Replace()) }, outcome.OrderBound},
		{"delete", func(fx *functions.Effects) { fx.Delete("t", key) }, outcome.OrderBound},
		{"statement", func(fx *functions.Effects) { fx.Exec(functions.Statement{Name: "s", SQL: "select 1"}) }, outcome.OrderBound},
		{"one that commutes and one that does not", func(fx *functions.Effects) { fx.Add("t", key, row); fx.Delete("t", key) }, outcome.OrderBound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				lacking := &sinkwriter.Error{Fault: sinkwriter.FaultDeployment, Function: "writes", Table: "t", Column: "n", Err: errors.New("no such column")}
				h, err := serve.New([]functions.Function{function("writes", func(context.Context, event.Event) (functions.Effects, error) {
					var fx functions.Effects
					tt.change(&fx)
					return fx, nil
				})}, &memory{err: lacking}, serve.Config{})
				if err != nil {
					t.Fatal(err)
				}
				want := outcome.Outcome{Kind: outcome.Deployment, Status: 503, Reason: lacking.Error(), Fingerprint: "t.n", EffectClass: tt.class, RetryAfter: time.Second}
				status, got := postForOutcomes(t.Context(), t, h, member("writes", 1), member("writes", 2))
				if diff := cmp.Diff([]outcome.Outcome{want, want}, got); diff != "" || status != 503 {
					t.Errorf("batch is answered %d (-want +got):\n%s", status, diff)
				}
				w := post(t, h, "writes")
				if diff := cmp.Diff(want, outcome.FromHTTP(w.Code, w.Header(), strings.TrimSpace(w.Body.String()))); diff != "" {
					t.Errorf("single event (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestEveryAnswerStatesTheLargestBatchAndTheTypes(t *testing.T) {
	t.Parallel()

	h := newHandler(t, &memory{}, serve.Config{MaxBatch: 2, MaxBytes: 4096})
	server := newServer(t, h)
	answers := map[string]answer{
		"committed":      send(t, server.URL, "{}", binary("fine", "1")...),
		"rejected":       send(t, server.URL, "{}", binary("rejects", "1")...),
		"failed":         send(t, server.URL, "{}", binary("fails", "1")...),
		"no event":       send(t, server.URL, "{}", "content-type: application/json"),
		"too large":      send(t, server.URL, strings.Repeat(" ", 5000), binary("fine", "1")...),
		"another path":   send(t, server.URL+"/elsewhere", "{}", binary("fine", "1")...),
		"batch":          send(t, server.URL, "["+member("fine", 1)+"]", batchType),
		"batch, outcome": send(t, server.URL, "["+member("fine", 1)+"]", batchType, "accept: "+outcome.OutcomesType),
		"large batch":    send(t, server.URL, "["+member("fine", 1)+","+member("fine", 2)+","+member("fine", 3)+"]", batchType, "accept: "+outcome.OutcomesType),
	}
	for _, method := range []string{http.MethodGet, http.MethodOptions} {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers[method] = do(t, req)
	}
	if err := h.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers["shutting down"] = send(t, server.URL, "{}", binary("fine", "1")...)
	for name, a := range answers {
		if events, bytes := a.header.Get(outcome.MaxBatchHeader), a.header.Get(outcome.MaxBatchBytesHeader); events != "2" || bytes != "4096" {
			t.Errorf("%s: %d with the limits %q and %q, want 2 and 4096", name, a.status, events, bytes)
		}
		if types := a.header.Get(outcome.TypesHeader); types != "fine;function=fine,rejects;function=rejects,fails;function=fails,panics;function=panics,waits;function=waits" {
			t.Errorf("%s: %d with the types %q", name, a.status, types)
		}
	}
	answers["large batch"].want(t, 413, "the batch has 3 events: want at most 2 in a request (TANDEM_MAX_BATCH)")
}

func TestAnImageWithOneFunctionStatesItsNameOnce(t *testing.T) {
	t.Parallel()

	f := function("rooms", func(context.Context, event.Event) (functions.Effects, error) { return functions.Effects{}, nil })
	f.Types = []string{"com.example.opened", "com.example.closed"}
	h, err := serve.New([]functions.Function{f}, &memory{}, serve.Config{})
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	h.AdvertiseBatch(header)
	if types := header.Get(outcome.TypesHeader); types != "com.example.opened;function=rooms,com.example.closed" {
		t.Errorf("types %q", types)
	}
}
