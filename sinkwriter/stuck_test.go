package sinkwriter_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Publisher calls without an answer do not delay later outputs.
func TestCallsThatHangHoldUpNoOthers(t *testing.T) {
	t.Parallel()

	const hanging = 8 // more than maxCalls
	pool := sinktest.NewDatabase(t)
	begun, open := make(chan struct{}, hanging), make(chan struct{})
	var calls atomic.Int64
	published := make(chan string, 1)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", PublishTimeout: 25 * time.Second, Publisher: publisher(func(_ context.Context, events []event.Event) error {
		if calls.Add(1) > hanging {
			published <- events[0].Subject()
			return nil
		}
		begun <- struct{}{}
		select {
		case <-open:
			return nil
		case <-t.Context().Done(): // not with the timeout of the call: a busy machine is slower
			return t.Context().Err()
		}
	})})
	wait := time.After(heldUp)
	for n := range hanging {
		if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprintf("o-%d", n), 1)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-begun:
		case <-wait:
			t.Fatalf("%d calls hang, and none is made for the next output", n)
		}
	}
	if _, err := w.Commit(t.Context(), sinktest.Order("well", 1)); err != nil {
		t.Fatal(err)
	}
	select {
	case subject := <-published:
		if subject != "well" {
			t.Errorf("published is %q", subject)
		}
	case <-wait:
		t.Error("the output is not published while calls for others hang")
	}
	close(open)
}
