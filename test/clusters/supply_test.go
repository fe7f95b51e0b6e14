package clusters_test

import (
	"context"
	"iter"
	"math"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/hack/feed"
)

// rest is the minimum number of flights that are fed after a test's last action on
// clusters.
const rest = 1000

// supply holds the flights that a test feeds, and the expected results. In make clusters these
// are all flights. In make test the supply ends with the test's actions.
type supply struct {
	all bool

	mu    sync.Mutex
	fed   int64
	limit int64
	want  map[string]feed.Totals
}

func newSupply() *supply {
	return &supply{all: !testing.Short(), limit: math.MaxInt64, want: map[string]feed.Totals{}}
}

// part returns the flights, or each nth starting with the ith: several feeds share
// them.
func (s *supply) part(i, n int) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		at := 0
		for e, err := range feed.FlightEvents(0) {
			mine := at%n == i
			at++
			if !mine {
				continue
			}
			more := true
			if err == nil {
				more, err = s.count(e)
			}
			if !more || !yield(e, err) {
				return
			}
		}
	}
}

// count adds an event to the expected results, or reports that the supply has
// ended.
func (s *supply) count(e event.Event) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fed >= s.limit {
		return false, nil
	}
	airport, totals, err := feed.TotalsOf(e)
	if err != nil {
		return true, err
	}
	s.fed++
	s.want[airport] = s.want[airport].Plus(totals)
	return true, nil
}

// end ends the supply after the rest, unless it is all flights.
func (s *supply) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.all {
		s.limit = min(s.limit, s.fed+rest)
	}
}

// total returns how many flights were fed. The feeds must have ended.
func (s *supply) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fed
}

// run feeds a part of the supply, and sends the feed's result on the channel that it
// returns.
func (s *supply) run(ctx context.Context, f *feed.Feed, i, n int) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, 0, s.part(i, n)) }()
	return ended
}
