package functionstest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Check has f compute the effects of every event many times: repeatedly, in other
// orders, concurrently, in a second process (with other seeds of maps, at another
// address), in two other time zones, in another locale, with another environment and
// host name, and on another day. If the results are not the same bytes each time, it
// reports the event, the first field that differs with both values, and the likely
// cause. It also reports an event on which f fails (a rejection is not a failure),
// whose type f does not handle, or whose data f changes.
//
// For the other processes it runs the test binary again with -test.run of tb's own
// name. The test must reach the same call of Check there, so do little before it. In
// these processes Check ends the test.
//
// Another day needs a *testing.T, because testing/synctest sets the clock. Without
// one, a function that only depends on the date passes.
func Check(tb testing.TB, f functions.Function, events []event.Event) {
	tb.Helper()
	var b bubble
	if t, ok := tb.(*testing.T); ok {
		b = bubbleOf(t)
	}
	check(tb, b, f, events)
}

// bubble runs f while the clock shows another day; nil if there is none.
type bubble func(f func(ctx context.Context))

func bubbleOf(t *testing.T) bubble {
	t.Helper()
	return func(f func(context.Context)) {
		synctest.Test(t, func(t *testing.T) {
			t.Helper()
			f(t.Context())
		})
	}
}

func check(tb testing.TB, b bubble, f functions.Function, events []event.Event) {
	tb.Helper()

	me := name(tb)
	c := &checker{f: f, events: events}
	if job, ok := readJob(); ok {
		job.runIn(tb, c, me)
		return
	}
	if !c.checkInput(tb) {
		return
	}

	r := c.computeHere(tb.Context(), b)
	if err := computeElsewhere(tb, me, r); err != nil {
		tb.Fatalf("check function %s: %v", f.Name, err)
	}
	c.report(tb, r)
}

// checker computes effects.
type checker struct {
	f      functions.Function
	events []event.Event
	stacks sync.Map // of the last panic on each event, by its index
}

// checkInput reports errors of the function and of the events that prevent computing.
func (c *checker) checkInput(tb testing.TB) bool {
	tb.Helper()
	if err := c.f.Validate(); err != nil {
		tb.Errorf("check %v", err)
		return false
	}
	if len(c.events) == 0 {
		tb.Errorf("check function %s: there are no events", c.f.Name)
		return false
	}
	for i, e := range c.events {
		if !slices.Contains(c.f.Types, e.Type()) {
			tb.Errorf("%s: function %s does not handle events of this type, only %q", c.describe(i), c.f.Name, c.f.Types)
			return false
		}
	}
	return true
}

// describe returns a description of an event.
func (c *checker) describe(i int) string {
	e := c.events[i]
	return fmt.Sprintf("event %d of %d (source %q, id %q, type %q)", i+1, len(c.events), e.Source(), e.ID(), e.Type())
}
