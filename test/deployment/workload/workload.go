// Package workload generates the events of chaos and drills, and counts the expected
// results.
package workload

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/hack/feed"
	"github.com/tandem-fn/tandem/test/deployment/workload/bank"
	"github.com/tandem-fn/tandem/test/deployment/workload/harm"
)

const (
	accounts   = 20
	bankSource = "/chaos/bank"

	// remembered is how many events can be repeated.
	remembered = 2000
	flood      = 500

	// repeatTimeout bounds the publishing of repeated events.
	repeatTimeout = 10 * time.Second
)

// Workload generates events and counts their truth. It is safe for concurrent
// use.
type Workload struct {
	random *rand.Rand
	ended  atomic.Bool

	mu    sync.Mutex
	truth Truth
	past  []event.Event
}

// New returns a workload that is determined by a seed.
func New(seed uint64) *Workload {
	return &Workload{
		random: rand.New(rand.NewPCG(seed, 2)),
		truth:  Truth{Flights: map[string]feed.Totals{}, Balances: map[string]int64{}},
	}
}

// End is the end of the events.
func (w *Workload) End() { w.ended.Store(true) }

// Truth returns the expected results of the events so far.
func (w *Workload) Truth() Truth {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.truth
	t.Flights, t.Balances = maps.Clone(t.Flights), maps.Clone(t.Balances)
	return t
}

// Events returns flights and transfers alternately, until End is called. It may be used
// once.
func (w *Workload) Events() iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		next, stop := iter.Pull2(feed.FlightEvents(0))
		defer stop()
		for n := 1; !w.ended.Load(); n++ {
			var e event.Event
			var err error
			more := false
			if n%2 == 1 {
				e, err, more = next()
			}
			switch {
			case !more:
				e, err = w.transfer(n)
			case err == nil:
				err = w.countFlight(e)
			}
			if err == nil {
				w.remember(e)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

func (w *Workload) transfer(n int) (event.Event, error) {
	from := w.random.IntN(accounts)
	to := (from + 1 + w.random.IntN(accounts-1)) % accounts
	t := bank.Transfer{From: fmt.Sprintf("account-%02d", from), To: fmt.Sprintf("account-%02d", to), Amount: 1 + w.random.Int64N(999)}
	e, err := newEvent(bankSource, fmt.Sprintf("transfer-%08d", n), bank.Transferred, t)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truth.Transfers++
	w.truth.Balances[t.From] -= t.Amount
	w.truth.Balances[t.To] += t.Amount
	if t.Amount >= bank.Large {
		w.truth.Noticed++
	}
	return e, err
}

func (w *Workload) countFlight(e event.Event) error {
	airport, totals, err := feed.TotalsOf(e)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truth.Flights[airport] = w.truth.Flights[airport].Plus(totals)
	return nil
}

func (w *Workload) remember(e event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.past = append(w.past, e); len(w.past) > remembered {
		w.past = w.past[1:]
	}
}

// Repeat publishes events again, so that the stream does not recognise them. It fails if
// none is stored.
func (w *Workload) Repeat(ctx context.Context, js natsjs.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, repeatTimeout)
	defer cancel()
	w.mu.Lock()
	past := append([]event.Event(nil), w.past...)
	w.mu.Unlock()
	if len(past) > flood {
		past = past[len(past)-flood:]
	}
	stored := false
	var failed error
	for _, e := range past {
		header, data, err := jetstream.Encode(e)
		if err != nil {
			return err
		}
		// Without an answer, for example because the stream has lost its leader, the
		// event is stored or not. Both are acceptable.
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err = js.PublishMsg(attempt, &nats.Msg{Subject: jetstream.Subject("events", e.Type()), Header: header, Data: data})
		cancel()
		if err != nil {
			failed = err
		} else {
			stored = true
		}
		if ctx.Err() != nil {
			break
		}
	}
	if stored {
		return nil
	}
	return failed
}

// Spoil publishes events that can never succeed; number distinguishes them from
// earlier ones.
func (w *Workload) Spoil(ctx context.Context, publisher *jetstream.Publisher, number int) error {
	var events []event.Event
	for i, bad := range []struct {
		kind string
		data any
	}{
		{flights.Departed, map[string]any{"date": "yesterday"}},
		{bank.Transferred, bank.Transfer{From: "a", To: "a", Amount: 1}},
		{bank.Transferred, []int{1}},
	} {
		e, err := newEvent("/chaos/poison", fmt.Sprintf("poison-%d-%d", number, i), bad.kind, bad.data)
		if err != nil {
			return err
		}
		events = append(events, e)
	}
	w.mu.Lock()
	w.truth.Poison += int64(len(events))
	w.mu.Unlock()
	return publish(ctx, publisher, events)
}

// Harm publishes events of the type harm, each of a kind; number distinguishes them from
// earlier ones.
func (w *Workload) Harm(ctx context.Context, publisher *jetstream.Publisher, number int, kinds ...harm.Kind) error {
	var events []event.Event
	var harmless int64
	for i, kind := range kinds {
		e, err := newEvent("/chaos/harm", fmt.Sprintf("harm-%d-%d-%s", number, i, kind), harm.Type, harm.Data{Kind: kind})
		if err != nil {
			return err
		}
		e.SetTime(time.Now())
		events = append(events, e)
		if kind == harm.None {
			harmless++
		}
	}
	w.mu.Lock()
	w.truth.Harmless += harmless
	w.truth.Poison += int64(len(events)) - harmless
	w.mu.Unlock()
	return publish(ctx, publisher, events)
}

// publish publishes events until they are stored or ctx ends.
func publish(ctx context.Context, publisher *jetstream.Publisher, events []event.Event) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := publisher.Publish(attempt, events)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func newEvent(source, id, kind string, data any) (event.Event, error) {
	e := event.New()
	e.SetSource(source)
	e.SetID(id)
	e.SetType(kind)
	return e, e.SetData(event.ApplicationJSON, data)
}
