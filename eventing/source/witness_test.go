package source_test

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/source"
)

// After an event that broke its connection, when no other one comes, an event that was committed
// before shows whether the function is well. That takes a ledger, and no leases.
func TestAWitnessTakesNoLeases(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	publishSubjects(t, server, 1, 2)
	j := newJournal(3)
	var attempts [3]atomic.Int64
	sink := j.functionOf(t, "east", func(n int) int {
		if attempts[n].Add(1) == 1 && n == 2 {
			return 599 // the connection breaks
		}
		return http.StatusNoContent
	})
	startOrdered(t, server, j, "east", sink, &progress{}, source.Config{})
	committed := func() int {
		n, _, _ := j.done()
		return n
	}
	eventtest.Reaches(t, "events are committed", 1, committed)
	publishSubjects(t, server, 2, 3)
	eventtest.Eventually(t, "the first one is sent again", func() bool { return attempts[1].Load() > 1 })
	eventtest.Reaches(t, "events are committed", 2, committed)
}
