package delivery

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Deliver tries until e is settled or ctx ends, as a source does that has nothing
// else to do.
func (d *Sender) Deliver(ctx context.Context, e event.Event) (Result, error) {
	errand := &Delivery{Event: e}
	for {
		step, err := d.Attempt(ctx, errand)
		if err != nil || step.Settled {
			return step.Result, err
		}
		select {
		case <-time.After(step.RetryIn):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
	}
}
