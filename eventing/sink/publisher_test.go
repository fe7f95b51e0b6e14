package sink_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
	"github.com/tandem-fn/tandem/sinkwriter/contract"
)

func TestOutputsGoToASinkOneByOneOrInBatches(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		cfg   sink.PublisherConfig
		sizes []int // of the requests
	}{
		{name: "one by one", sizes: []int{1, 1, 1, 1, 1, 1, 1}},
		{name: "in batches", cfg: sink.PublisherConfig{Batch: 3}, sizes: []int{1, 3, 3}},
		{name: "in small batches", cfg: sink.PublisherConfig{Batch: 3, BatchBytes: 400}, sizes: []int{1, 2, 2, 2}},
		{name: "each larger than a batch", cfg: sink.PublisherConfig{Batch: 3, BatchBytes: 10}, sizes: []int{1, 1, 1, 1, 1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := newOutputSink(t, nil)
			tt.cfg.Sink.Overrides = map[string]string{"tenant": "acme"}
			if err := newSinkPublisher(t, s.url, tt.cfg).Publish(t.Context(), outputs(7)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(outputIDs(7), s.taken()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			slices.Sort(s.sizes)
			if diff := cmp.Diff(tt.sizes, s.sizes); diff != "" {
				t.Errorf("events a request (-want +got):\n%s", diff)
			}
			for _, e := range s.events {
				if e.Extensions()["tenant"] != "acme" || e.Source() != "/test" || string(e.Data()) != `{"n":1}` {
					t.Errorf("sent %v", e)
				}
			}
		})
	}
}

func TestASinkThatTakesNoBatchesGetsEventsOneByOne(t *testing.T) {
	t.Parallel()

	for _, code := range []int{http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge} {
		s := newOutputSink(t, func(batch []event.Event) int {
			if len(batch) > 1 {
				return code
			}
			return http.StatusAccepted
		})
		if err := newSinkPublisher(t, s.url, sink.PublisherConfig{Batch: 5}).Publish(t.Context(), outputs(10)); err != nil {
			t.Errorf("%d: %v", code, err)
		}
		if diff := cmp.Diff(outputIDs(10), s.taken()); diff != "" {
			t.Errorf("%d: events (-want +got):\n%s", code, diff)
		}
	}
}

func TestOnlyA2xxCounts(t *testing.T) {
	t.Parallel()

	for _, code := range []int{301, 401, 402, 403, 404, 405, 408, 409, 410, 429, 500, 502, 503} {
		var mu sync.Mutex
		requests := map[string]int{}
		s := newOutputSink(t, func(batch []event.Event) int {
			mu.Lock()
			defer mu.Unlock()
			id := batch[0].ID()
			if requests[id]++; requests[id] < 3 && id != "out-02" {
				return code
			}
			return http.StatusNoContent
		})
		p, rest := newSinkPublisher(t, s.url, sink.PublisherConfig{}), outputs(5)
		for n := range 3 {
			err := p.Publish(t.Context(), rest)
			if errors.As(err, new(*eventing.Rejection)) || (err == nil) != (n == 2) {
				t.Errorf("%d, call %d: %v", code, n, err)
			}
			rest = unstored(rest, err)
		}
		if diff := cmp.Diff(outputIDs(5), s.taken()); diff != "" || len(s.events) != 5 {
			t.Errorf("%d: %d events were accepted (-want +got):\n%s", code, len(s.events), diff)
		}
	}
}

// unstored returns the events in an error of Publish.
func unstored(events []event.Event, err error) []event.Event {
	var rest []event.Event
	for i, reason := range contract.ReasonsOf(err, len(events)) {
		if reason != nil {
			rest = append(rest, events[i])
		}
	}
	return rest
}

func TestAnOutputThatIsRejectedIsReportedAndHoldsUpNoOthers(t *testing.T) {
	t.Parallel()

	for _, code := range []int{400, 413, 415, 422, 431} {
		for _, batch := range []int{1, 4} {
			s := newOutputSink(t, func(batch []event.Event) int {
				if slices.ContainsFunc(batch, func(e event.Event) bool { return e.ID() == "out-03" }) {
					return code
				}
				return http.StatusNoContent
			})
			err := newSinkPublisher(t, s.url, sink.PublisherConfig{Batch: batch}).Publish(t.Context(), outputs(10))
			var rejected *eventing.Rejection
			if !errors.As(err, &rejected) || rejected.Code != code || !strings.Contains(err.Error(), fmt.Sprintf("rejected with %d %s: as told", code, http.StatusText(code))) {
				t.Errorf("error %v", err)
			}
			if tooLarge := errors.Is(err, eventing.ErrTooLarge); tooLarge != (code == 413) {
				t.Errorf("%d: too large: %t", code, tooLarge)
			}
			if rest := unstored(outputs(10), err); len(rest) != 1 || rest[0].ID() != "out-03" {
				t.Errorf("%d: reported are %v", code, rest)
			}
			want := slices.DeleteFunc(outputIDs(10), func(id string) bool { return id == "out-03" })
			if diff := cmp.Diff(want, s.taken()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		}
	}
}

func TestASinkThatIsUnavailableIsProbed(t *testing.T) {
	t.Parallel()

	var up atomic.Bool
	var requests atomic.Int64
	s := newOutputSink(t, func([]event.Event) int {
		requests.Add(1)
		if up.Load() {
			return http.StatusAccepted
		}
		return http.StatusServiceUnavailable
	})
	p := newSinkPublisher(t, s.url, sink.PublisherConfig{InFlight: 20})
	events := outputs(90)
	for n, want := range []int64{20, 4, 4} {
		requests.Store(0)
		err := p.Publish(t.Context(), events)
		if rest := unstored(events, err); len(rest) != len(events) || requests.Load() != want {
			t.Errorf("call %d: %d requests, want %d; %d events are not stored: %v", n, requests.Load(), want, len(rest), err)
		}
	}
	if err := p.Ready(); err == nil {
		t.Error("it is ready")
	}
	up.Store(true)
	if err := p.Publish(t.Context(), events); err != nil {
		t.Error(err)
	}
	if err := p.Ready(); err != nil || len(s.taken()) != len(events) {
		t.Errorf("not ready: %v; %d events were accepted, want %d", err, len(s.taken()), len(events))
	}
}

func TestATypeThatFailsHoldsUpNoOthers(t *testing.T) {
	t.Parallel()

	for name, fail := range map[string]func() int{
		"it is answered with 503": func() int { return http.StatusServiceUnavailable },
		"it is not answered": func() int {
			time.Sleep(time.Second)
			return http.StatusServiceUnavailable
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for _, batch := range []int{1, 5} {
				var failed atomic.Int64
				var sent sync.Map // events of other types, by id
				s := newOutputSink(t, func(batch []event.Event) int {
					if batch[0].Type() == "failing" {
						failed.Add(1)
						return fail()
					}
					for _, e := range batch {
						sent.Store(e.ID(), true)
					}
					return http.StatusAccepted
				})
				p := newSinkPublisher(t, s.url, sink.PublisherConfig{InFlight: 20, Batch: batch, Timeout: 500 * time.Millisecond})
				events := outputs(99)
				for i := range 80 { // these are the first and most of the events
					events[i].SetType("failing")
				}
				for call := range 3 {
					failed.Store(0)
					var rest []event.Event
					rest = append(rest, events[:80]...)
					for n, e := range events[80:] {
						e.SetID(fmt.Sprintf("call-%d-%02d", call, n))
						rest = append(rest, e)
					}
					err := p.Publish(t.Context(), rest)
					// On a busy machine the answer for another type may be late.
					left := slices.DeleteFunc(unstored(rest, err), func(e event.Event) bool {
						_, ok := sent.Load(e.ID())
						return ok
					})
					if len(left) != 80 || slices.ContainsFunc(left, func(e event.Event) bool { return e.Type() != "failing" }) {
						t.Errorf("batch %d, call %d: %d events are not sent, want the 80 of the failing type", batch, call, len(left))
					}
					if n := failed.Load(); call > 0 && n > 4 {
						t.Errorf("batch %d, call %d: %d requests with the failing type, want 4", batch, call, n)
					}
				}
			}
		})
	}
}

// Requests without an answer occupy only some of the concurrent requests. Other types, new
// ones too, do not wait for them.
func TestTypesThatHangLeavePlacesToOthers(t *testing.T) {
	t.Parallel()

	const types, each = 100, 3
	hang, released := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	requests, hanging := 0, map[string]bool{} // of types that hang
	hangs := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return requests, len(hanging)
	}
	s := newOutputSink(t, func(batch []event.Event) int {
		if eventType := batch[0].Type(); strings.HasPrefix(eventType, "hanging") {
			mu.Lock()
			requests++
			hanging[eventType] = true
			mu.Unlock()
			<-hang
			return http.StatusServiceUnavailable
		}
		return http.StatusAccepted
	})
	p := newSinkPublisher(t, s.url, sink.PublisherConfig{Timeout: time.Minute})
	if err := p.Publish(t.Context(), outputs(1)); err != nil {
		t.Fatal(err)
	}
	events := outputs(types * each)
	for i := range events {
		events[i].SetType(fmt.Sprintf("hanging-%d", i%types))
	}
	go func() {
		defer close(released)
		_ = p.Publish(t.Context(), events)
	}()
	publish := func(what string, events []event.Event) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := p.Publish(ctx, events); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	eventtest.Eventually(t, "some hang", func() bool {
		_, types := hangs()
		return types >= 16
	})
	publish("a type that was accepted", outputs(200))
	fresh := outputs(20)
	for i := range fresh {
		fresh[i].SetType(fmt.Sprintf("new-%d", i%5))
	}
	publish("new types", fresh)
	eventtest.Eventually(t, "every type was sent", func() bool {
		_, sent := hangs()
		return sent == types
	})
	if n, _ := hangs(); n >= 2*types {
		t.Errorf("%d requests hang, want hardly more than one of each of %d types", n, types)
	}
	time.Sleep(1500 * time.Millisecond) // until all of them are known to hang
	// Events of the hanging types are not sent again in a call with others.
	mixed := append(slices.Clone(events), fresh...)
	for stalls := eventtest.Stalls(t); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := p.Publish(ctx, mixed)
		late := ctx.Err() != nil
		cancel()
		if late && stalls() > time.Second && t.Context().Err() == nil {
			continue // it began before the timer detected that one of them hangs
		}
		if rest := unstored(mixed, err); len(rest) != len(events) || late {
			t.Errorf("%d events are not stored, want the %d that hang: %v", len(rest), len(events), err)
		}
		break
	}
	close(hang)
	<-released
}

// A sink that takes longer than hangAfter is only slow.
func TestASlowSinkGetsEachOutputOnce(t *testing.T) {
	t.Parallel()

	var requests atomic.Int64
	s := newOutputSink(t, func([]event.Event) int {
		requests.Add(1)
		time.Sleep(1300 * time.Millisecond)
		return http.StatusAccepted
	})
	if err := newSinkPublisher(t, s.url, sink.PublisherConfig{InFlight: 20}).Publish(t.Context(), outputs(50)); err != nil {
		t.Error(err)
	}
	if n := requests.Load(); n != 50 || len(s.taken()) != 50 {
		t.Errorf("%d requests, %d events were accepted, want 50", n, len(s.taken()))
	}
}

func TestALimitOfTheSinkIsChecked(t *testing.T) {
	t.Parallel()

	large := outputs(1)[0] // its data has 7 bytes
	for limit, ok := range map[int64]bool{0: true, 6: false, 7: true} {
		err := newSinkPublisher(t, "http://x", sink.PublisherConfig{MaxEventBytes: limit}).Check(t.Context(), large)
		var rejected *eventing.Rejection
		if ok != (err == nil) || !ok && (!errors.As(err, &rejected) || rejected.Code != 413 || !strings.Contains(err.Error(), "7 bytes, TANDEM_OUTPUT_MAX_BYTES is 6")) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestRequestsUnderWayEndBeforePublishDoes(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	s := newOutputSink(t, func([]event.Event) int {
		cancel()
		<-ctx.Done()
		return http.StatusAccepted
	})
	events := outputs(50)
	err := newSinkPublisher(t, s.url, sink.PublisherConfig{InFlight: 3}).Publish(ctx, events)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if rest, accepted := unstored(events, err), s.taken(); len(accepted) == 0 || len(rest)+len(accepted) != len(events) {
		t.Errorf("%d events were accepted, %d are reported as not stored, want %d together", len(accepted), len(rest), len(events))
	}
}

func TestPublishingToAnUnreachableSinkFails(t *testing.T) {
	t.Parallel()

	logger, lines := eventtest.Logger()
	p := newSinkPublisher(t, "http://user:secret@127.0.0.1:1/", sink.PublisherConfig{Logger: logger})
	err := p.Publish(t.Context(), outputs(3))
	if !strings.Contains(fmt.Sprint(err), "connection refused") || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v", err)
	}
	if got := lines(); len(got) != 1 || strings.Contains(got[0], "secret") {
		t.Errorf("log:\n%s", strings.Join(got, ""))
	}
	if err := p.Ready(); err == nil {
		t.Error("it is ready")
	}
}

func TestNewSinkPublisherSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		address string
		cfg     sink.PublisherConfig
		want    string
	}{
		{address: "user:secret@x", want: "URL of the sink: want http://"},
		{address: "http://x", cfg: sink.PublisherConfig{Batch: 1001}, want: "batch of 1001 events"},
		{address: "http://x", cfg: sink.PublisherConfig{InFlight: -1}, want: "negative"},
		{address: "http://x", cfg: sink.PublisherConfig{Timeout: -time.Second}, want: "timeout"},
		{address: "http://x", cfg: sink.PublisherConfig{Sink: sink.Config{CACerts: "x"}}, want: "CA certificates"},
	} {
		_, err := sink.NewPublisher(tt.address, tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v, want %q in it", err, tt.want)
		}
	}
}

// outputSink accepts CloudEvents in every mode.
type outputSink struct {
	url string

	mu     sync.Mutex
	events []event.Event
	sizes  []int
}

// newOutputSink starts a sink that answers with the status of answer; nil means 202
// always.
func newOutputSink(t *testing.T, answer func(batch []event.Event) int) *outputSink {
	t.Helper()

	s := &outputSink{}
	s.url = eventtest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var batch []event.Event
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents-batch+json") {
			members, err := cloudevent.ReadBatch(body, cloudevent.Rules{})
			if err != nil {
				t.Error(err)
			}
			for _, m := range members {
				if m.Err != nil {
					t.Error(m.Err)
				}
				batch = append(batch, m.Event)
			}
		} else {
			e, err := cloudevent.Read(r.Header.Get("Content-Type"), r.Header, body, cloudevent.Rules{})
			if err != nil {
				t.Error(err)
			}
			batch = append(batch, e)
		}
		code := http.StatusAccepted
		if answer != nil {
			code = answer(batch)
		}
		if code/100 == 2 {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, batch...)
			s.sizes = append(s.sizes, len(batch))
		}
		http.Error(w, "as told", code)
	})
	return s
}

// taken returns the distinct ids that were accepted.
func (s *outputSink) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, e := range s.events {
		ids = append(ids, e.ID())
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func newSinkPublisher(t *testing.T, address string, cfg sink.PublisherConfig) *sink.Publisher {
	t.Helper()

	p, err := sink.NewPublisher(address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func outputs(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = eventtest.NewEvent(fmt.Sprintf("out-%02d", i))
	}
	return events
}

func outputIDs(n int) []string {
	var ids []string
	for _, e := range outputs(n) {
		ids = append(ids, e.ID())
	}
	return ids
}
