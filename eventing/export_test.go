package eventing

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
)

// Deliver tries until e is settled or ctx ends, as a source does that has nothing
// else to do.
func (d *Delivery) Deliver(ctx context.Context, e event.Event) (Outcome, error) {
	errand := &errand{event: e}
	for {
		step, err := d.step(ctx, errand)
		if err != nil || step.settled {
			return step.outcome, err
		}
		select {
		case <-time.After(step.after):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return Outcome{}, ctx.Err()
		}
	}
}
