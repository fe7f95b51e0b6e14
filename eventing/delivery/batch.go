package delivery

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// AppendMember appends an event to the JSON array of a batch, as the sink gets it. Ok
// is false if it can only be sent alone.
func (d *Sender) AppendMember(body []byte, e event.Event) (longer []byte, ok bool) {
	return cloudevent.AppendMember(body, d.cfg.Sink.Apply(e))
}

// BatchBackoff returns the wait until an event whose batch failed is delivered again.
func (d *Sender) BatchBackoff(e *Delivery, a Answer) time.Duration {
	return e.retryBackoff.Delay(d.cfg.BackoffBase, d.cfg.BackoffCap, a.retryAfter)
}

// SendBatch sends a batch once. It reports an outage only where no answer to one
// event would say more.
func (d *Sender) SendBatch(ctx context.Context, body []byte) Answer {
	r := sink.EncodeBatch(body)
	a := d.send(ctx, d.function, r)
	if a.Outcome != Accepted && ctx.Err() == nil {
		d.cfg.Failed(ctx)
	}
	return a
}
