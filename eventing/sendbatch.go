package eventing

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// appendMember appends an event to the JSON array of a batch, as the sink gets it. Ok
// is false if it can only be sent alone.
func (d *Delivery) appendMember(body []byte, e event.Event) (longer []byte, ok bool) {
	return cloudevent.AppendMember(body, d.cfg.Sink.apply(e))
}

// backoff returns the wait until an event whose batch failed is delivered again.
func (d *Delivery) backoff(e *errand, a answer) time.Duration {
	return e.waiting.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)
}

// tryTogether sends a batch once. It reports an outage only where no answer to one
// event would say more.
func (d *Delivery) tryTogether(ctx context.Context, body []byte) answer {
	r := encodeBatch(body)
	a := d.try(ctx, d.function, r)
	if a.verdict != taken && ctx.Err() == nil {
		d.cfg.Failed(ctx)
	}
	return a
}
