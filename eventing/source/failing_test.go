package source_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/eventing/source"
)

const (
	failingEvents = 1500 // of a type that fails
	healthyEvery  = 6    // one event in so many succeeds
	failingTotal  = failingEvents * healthyEvery / (healthyEvery - 1)
)

// publishFailing stores events of two types: one in healthyEvery is of a type that
// succeeds.
func publishFailing(t *testing.T, server *natstest.Server) {
	t.Helper()

	publisher, err := jetstream.NewPublisher(eventtest.Connect(t, server, nil), jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	events := make([]event.Event, failingTotal)
	for i := range events {
		events[i] = eventtest.NewEvent(fmt.Sprintf("test-%06d", i))
		if i%healthyEvery != 0 {
			events[i].SetType("com.example.failing")
		}
	}
	eventtest.Eventually(t, "events are stored", func() bool { return publisher.Publish(t.Context(), events) == nil })
}

// Five of six events fail permanently, and the in-flight table has room for few
// payloads. All events of the other type are delivered meanwhile.
func TestATypeThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()

	for _, single := range []bool{false, true} {
		for _, status := range []int{http.StatusServiceUnavailable, http.StatusInternalServerError} {
			t.Run(fmt.Sprintf("%d single %t", status, single), func(t *testing.T) {
				t.Parallel()

				server := natstest.Start(t)
				publishFailing(t, server)
				f, p := newTogether(t), &progress{}
				f.noBatches = single
				var fails atomic.Bool
				fails.Store(true)
				f.status = func(id string, _ bool) int {
					n, err := strconv.Atoi(strings.TrimPrefix(id, "test-"))
					if err != nil || n%healthyEvery != 0 && fails.Load() {
						return status
					}
					return http.StatusNoContent
				}
				stream, err := jetstream.NewStream(eventtest.Connect(t, server, nil), "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
				if err != nil {
					t.Fatal(err)
				}
				sender, err := delivery.New(f.server.URL, f.server.URL+"/dead-letters", delivery.Config{Function: "flights"})
				if err != nil {
					t.Fatal(err)
				}
				s, err := source.New(eventing.StreamList{stream}, sender, p, source.Config{Function: "flights", InFlight: 32, MaxBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				run(t, s)
				eventtest.Reaches(t, "events of the other type are done", failingTotal-failingEvents, f.count)
				f.read(func() {
					if len(f.letters) > 0 {
						t.Errorf("%d events are dead", len(f.letters))
					}
				})
				if status == http.StatusServiceUnavailable {
					checkProbes(t, f)
				}
				fails.Store(false)
				eventtest.Reaches(t, "events are done", failingTotal, f.count)
			})
		}
	}
}

// checkProbes verifies that a type that is unavailable is probed, and not hammered.
func checkProbes(t *testing.T, f *together) {
	t.Helper()

	const atATime, perSecond = 32, 30 // requests under way when it began, and probes while the interval grows
	before, begun := f.attempts(), time.Now()
	time.Sleep(3 * time.Second)
	n := f.attempts() - before
	if took := time.Since(begun); float64(n) > atATime+perSecond*took.Seconds() {
		t.Errorf("%d attempts in %s, want at most %d, and %d a second", n, took, atATime, perSecond)
	}
}
