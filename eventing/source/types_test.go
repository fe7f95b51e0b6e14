package source_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// typed is a function that states which types it knows, and rejects others.
type typed struct {
	mu      sync.Mutex
	knows   []string
	silent  bool           // it does not state its types
	got     map[string]int // by type
	letters map[string]int
	asked   int // OPTIONS requests
}

func (f *typed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.silent {
		w.Header().Set(outcome.TypesHeader, strings.ReplaceAll(strings.ReplaceAll(strings.Join(f.knows, "\n"), ",", "%2C"), "\n", ", "))
	}
	w.Header().Set(outcome.ReceiptHeader, outcome.ReceiptLost)
	if r.Method == http.MethodOptions {
		f.asked++
		return
	}
	e, err := cloudevent.ReadBinary(r.Header, nil, cloudevent.Rules{})
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Path == "/dead-letters":
		f.letters[e.Type()]++
	default:
		f.got[e.Type()]++
		for _, known := range f.knows {
			if known == e.Type() {
				return
			}
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
}

func (f *typed) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// typesOf is a source with configured types, and its function.
type typesOf struct {
	server  *natstest.Server
	f       *typed
	p       *progress
	source  *source.Source
	lines   func() []string
	metrics *sdkmetric.ManualReader
	stored  uint64
	offset  *clock
}

// clock is the time, with an offset.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

func startTyped(t *testing.T, f *typed, types ...string) *typesOf {
	t.Helper()

	f.got, f.letters = map[string]int{}, map[string]int{}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	logger, lines := eventtest.Logger()
	w := &typesOf{server: natstest.Start(t), f: f, p: &progress{}, lines: lines, metrics: sdkmetric.NewManualReader(), offset: &clock{}}
	metrics, err := source.NewMetrics(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.metrics)), "east", "flights")
	if err != nil {
		t.Fatal(err)
	}
	if err := eventtest.Connect(t, w.server, nil).EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	stream, err := jetstream.NewStream(eventtest.Connect(t, w.server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := delivery.New(server.URL, server.URL+"/dead-letters", delivery.Config{
		Function: "flights", BackoffBase: time.Millisecond, BackoffCap: 20 * time.Millisecond, Now: w.offset.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.source, err = source.New(eventing.StreamList{stream}, sender, w.p, source.Config{
		Function: "flights", SaveInterval: saveInterval, Metrics: metrics, Logger: logger, Types: types,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, w.source)
	return w
}

// send stores an event of each type and waits until they are acknowledged.
func (w *typesOf) send(t *testing.T, types ...string) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, w.server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	for _, eventType := range types {
		w.stored++
		e := eventtest.NewEvent(fmt.Sprintf("%d", w.stored))
		e.SetType(eventType)
		eventtest.Eventually(t, "it is stored", func() bool { return publisher.Publish(t.Context(), []event.Event{e}) == nil })
		eventtest.Eventually(t, "it is acknowledged", func() bool { return w.p.floor("EVENTS") == w.stored+1 })
	}
}

func (w *typesOf) want(t *testing.T, got, letters string, filtered float64) {
	t.Helper()

	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	if fmt.Sprint(w.f.got) != "map["+got+"]" || fmt.Sprint(w.f.letters) != "map["+letters+"]" {
		t.Errorf("delivered %v, dead letters %v, want %s and %s", w.f.got, w.f.letters, got, letters)
	}
	if n := collect(t, w.metrics)["tandem_source_filtered"]; n != filtered {
		t.Errorf("%v were filtered, want %v", n, filtered)
	}
}

func (w *typesOf) ready(t *testing.T, want string) {
	t.Helper()

	eventtest.Eventually(t, "readiness: "+want, func() bool {
		err := w.source.Ready()
		return err == nil && want == "" || err != nil && want != "" && strings.Contains(err.Error(), want)
	})
}

func (w *typesOf) reported(what string) (n int) {
	for _, line := range w.lines() {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

func TestWithoutTypesTheFunctionsAreDelivered(t *testing.T) {
	t.Parallel()

	w := startTyped(t, &typed{knows: []string{"a", "b,c"}})
	// The first message of another type is delivered, and the function's answer states its
	// types.
	w.send(t, "other", "a", "other", "b,c", "other", "b")
	w.want(t, "a:1 b,c:1 other:1", "", 4)
	w.ready(t, "")

	// A new version knows more types.
	w.f.set(func() { w.f.knows = append(w.f.knows, "new") })
	w.send(t, "new")
	w.want(t, "a:1 b,c:1 other:1", "", 5)
	w.send(t, "a", "new")
	w.want(t, "a:2 b,c:1 new:1 other:1", "", 5)

	// The function has not answered for a long time.
	w.f.set(func() { w.f.knows = append(w.f.knows, "newer") })
	w.offset.pass(11 * time.Minute)
	w.send(t, "newer", "other")
	w.want(t, "a:2 b,c:1 new:1 newer:1 other:1", "", 6)

	// During a rollout an older version answers too: a type that it does not know becomes a
	// dead letter, because some version rejects it.
	w.f.set(func() { w.f.knows = []string{"a"} })
	w.send(t, "new")
	w.want(t, "a:2 b,c:1 new:2 newer:1 other:1", "new:1", 6)
	w.f.set(func() {
		if w.f.asked != 0 {
			t.Errorf("the function was asked %d times without an event", w.f.asked)
		}
	})
}

func TestAFunctionThatDoesNotStateItsTypesGetsAll(t *testing.T) {
	t.Parallel()

	w := startTyped(t, &typed{knows: []string{"a"}, silent: true})
	w.send(t, "a", "other")
	w.want(t, "a:1 other:1", "other:1", 0)
	w.ready(t, "")
}

func TestTypesThatTheFunctionDoesNotKnowAreReported(t *testing.T) {
	t.Parallel()

	w := startTyped(t, &typed{knows: []string{"a.made", "b"}}, "a.*", "typo", "c.*")
	w.ready(t, "")
	w.send(t, "a.made")
	w.ready(t, "the function does not know event type c.*, typo of TANDEM_TYPES; its types are: a.made, b")
	eventtest.Eventually(t, "it is logged", func() bool { return w.reported("does not know event type") == 1 })
	w.f.set(func() { w.f.knows = append(w.f.knows, "typo", "c.d") })
	w.send(t, "a.made")
	w.ready(t, "")
}

func TestAFilterThatLetsNothingThroughIsReported(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name   string
		silent bool
		types  string
		before string // readiness
	}{
		{name: "a function that does not know the type", types: "typo", before: "does not know event type typo"},
		{name: "a function that knows the type", types: "a", before: ""},
		{name: "a function that does not say", types: "a", silent: true, before: `and none was of a type in TANDEM_TYPES`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			w := startTyped(t, &typed{knows: []string{"a"}, silent: tt.silent}, tt.types)
			w.ready(t, "")
			w.send(t, "other", "another")
			eventtest.Eventually(t, "the function is asked", func() (asked bool) {
				w.f.set(func() { asked = w.f.asked > 0 })
				return asked
			})
			w.ready(t, tt.before)
			want := "none was of a type in TANDEM_TYPES"
			if tt.types == "typo" {
				want = "does not know event type typo"
			}
			eventtest.Eventually(t, "it is logged", func() bool { return w.reported(want) == 1 })
			w.want(t, "", "", 2)
			w.f.set(func() {
				if w.f.asked != 1 {
					t.Errorf("the function was asked %d times", w.f.asked)
				}
			})
			if tt.types != "typo" {
				w.send(t, "a")
				w.ready(t, "")
			}
		})
	}
}
