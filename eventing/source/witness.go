package source

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

const (
	// witnessCheck is the time between two checks whether a witness is needed, and
	// witnessAge the maximum age of a witness: the ledger must not forget it meanwhile.
	witnessCheck = 500 * time.Millisecond
	witnessAge   = 10 * time.Minute

	// maxWitnesses bounds the types of which a witness is kept.
	maxWitnesses = 16
)

// witness is an event that the function has committed. If it is sent again, its receipt is
// lost, which shows that the function works. So an event that ends the process becomes a dead
// letter even if no other event arrives.
type witness struct {
	event event.Event
	id    EventID
	at    time.Time
}

// witnesses are the latest witness of each type: an image may have several functions, one
// of which may be unable to use the database.
type witnesses struct {
	mu     sync.Mutex
	byType map[string]witness
}

// noteWitness keeps an event that was just committed.
func (s *Source) noteWitness(e *inflight.Entry, step delivery.Step) {
	if s.cfg.Ledger == nil || step.Receipt != outcome.ReceiptWon && step.Receipt != outcome.ReceiptLost {
		return
	}
	eventType := e.Delivery.Event.Type()
	w := &s.witnesses
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.byType[eventType]; !known && len(w.byType) >= maxWitnesses {
		return
	}
	if w.byType == nil {
		w.byType = map[string]witness{}
	}
	w.byType[eventType] = witness{event: e.Delivery.Event, id: e.ID, at: s.cfg.Now()}
}

// young returns the witnesses that the ledger cannot have forgotten since a time.
func (w *witnesses) young(since time.Time) (list []witness) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.byType {
		if one.at.After(since) {
			list = append(list, one)
		}
	}
	return list
}

// followWitness sends the witness while one is needed, until ctx ends.
func (s *Source) followWitness(ctx context.Context) {
	if s.cfg.Ledger == nil {
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
		if !s.table.NeedsWitness() {
			continue
		}
		if w, ok := s.findWitness(ctx); ok {
			s.sendWitness(ctx, w)
		}
	}
}

// findWitness returns a witness that the ledger has.
func (s *Source) findWitness(ctx context.Context) (witness, bool) {
	list := s.witnesses.young(s.cfg.Now().Add(-witnessAge))
	if len(list) == 0 {
		return witness{}, false
	}
	types, ids := make([]string, len(list)), make([]EventID, len(list))
	for i, w := range list {
		types[i], ids[i] = w.event.Type(), w.id
	}
	committed, err := s.committed(ctx, types, ids)
	if err != nil {
		return witness{}, false
	}
	i := slices.Index(committed, true)
	if i < 0 {
		return witness{}, false
	}
	return list[i], true
}

func (s *Source) sendWitness(ctx context.Context, w witness) {
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
