package source

import (
	"context"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

const (
	// witnessCheck is the time between two looks at whether a witness is needed, and
	// witnessAge how old one may be: the ledger must not forget it meanwhile.
	witnessCheck = 500 * time.Millisecond
	witnessAge   = 10 * time.Minute
)

// witness is an event that the function has committed. Sent again, it is lost, and shows that
// the function is well. So an event that ends the process is dead also if nothing else comes.
type witness struct {
	event event.Event
	id    EventID
	at    time.Time
}

// noteWitness keeps an event that was committed now.
func (s *Source) noteWitness(e *inflight.Entry, step delivery.Step) {
	if s.leases() && (step.Receipt == outcome.ReceiptWon || step.Receipt == outcome.ReceiptLost) {
		s.witness.Store(&witness{event: e.Delivery.Event, id: e.ID, at: s.cfg.Now()})
	}
}

// followWitness sends the witness while one is needed, until ctx ends.
func (s *Source) followWitness(ctx context.Context) {
	if !s.leases() {
		return
	}
	ticker := time.NewTicker(witnessCheck)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if w := s.witness.Load(); w != nil && s.table.NeedsWitness() && s.isCommitted(ctx, w) {
			s.sendWitness(ctx, w)
		}
	}
}

// isCommitted reports whether the ledger still has a witness.
func (s *Source) isCommitted(ctx context.Context, w *witness) bool {
	if s.cfg.Now().Sub(w.at) > witnessAge {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	committed, err := s.cfg.Ledger.Committed(ctx, s.cfg.Function, []EventID{w.id})
	return err == nil && committed[0]
}

func (s *Source) sendWitness(ctx context.Context, w *witness) {
	begun := s.cfg.Now()
	steps, answered := s.sender.Deliver(ctx, []*delivery.Delivery{{Event: w.event, Alone: true}})
	step := steps[0]
	r := inflight.Request{
		Took: s.cfg.Now().Sub(begun), Answered: answered, Draining: step.Draining,
		Committed: step.Settled && step.Outcome.Kind == outcome.Committed,
	}
	if step.Broken {
		r.Next = []inflight.Next{inflight.Broken}
	}
	s.noteStrikes(ctx, s.table.Witness(r))
}
