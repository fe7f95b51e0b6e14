package delivery

import (
	"context"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/sink"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// deliverBatch sends several events. What can only be sent alone is not sent.
func (d *Sender) deliverBatch(ctx context.Context, ds []*Delivery) (steps []Step, answered bool) {
	steps = make([]Step, len(ds))
	body := append(make([]byte, 0, 512*len(ds)), '[')
	members := make([]int, 0, len(ds))
	for i, e := range ds {
		longer, ok := cloudevent.AppendMember(body, d.cfg.Sink.Apply(e.Event))
		if !ok {
			e.Alone = true
			continue
		}
		body = append(longer, ',')
		members = append(members, i)
	}
	if len(members) == 0 {
		return steps, true
	}
	body[len(body)-1] = ']'
	a := d.send(ctx, d.function, sink.EncodeBatch(body).Accepting(eventing.OutcomesType), len(members))
	for k, i := range members {
		o := a.outcome
		switch {
		case a.outcomes != nil:
			o = a.outcomes[k]
		case a.outcome.Kind != outcome.Unavailable:
			// What is said of a batch is said of none of its events: each is sent alone.
			o = outcome.Outcome{Kind: outcome.Pending}
		}
		if a.outcomes == nil {
			ds[i].Alone = true // one of them may be why
		}
		steps[i] = d.step(ctx, ds[i], a, o)
	}
	return steps, a.answered
}
