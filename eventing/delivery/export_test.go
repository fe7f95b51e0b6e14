package delivery

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
)

// DeliverUntilSettled sends e until it is settled or ctx ends, like an otherwise idle
// source. It returns the last step.
func (d *Sender) DeliverUntilSettled(ctx context.Context, e event.Event) (Step, error) {
	delivery := &Delivery{Event: e}
	for {
		steps, _ := d.Deliver(ctx, []*Delivery{delivery})
		step := steps[0]
		if step.Err != nil || step.Settled {
			return step, step.Err
		}
		select {
		case <-time.After(step.RetryIn):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return Step{}, ctx.Err()
		}
	}
}
