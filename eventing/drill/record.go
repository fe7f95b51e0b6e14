package drill

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // handed on to sinkwriter/snapshot, which has the statements

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

// handled is the time at which an event arrived in the stream and the time at which it
// was committed.
type handled struct{ arrived, committed time.Time }

// Record is the times that the stream and the ledger recorded during a drill.
type Record struct {
	commits []time.Time // sorted; for the gaps
	events  []handled
}

// Read reads the events since a time, and when they were committed. Exact reports
// whether the database records the times of commits, not only those of the beginnings
// of transactions.
func Read(ctx context.Context, pool *pgxpool.Pool, conn *jetstream.Conn, streams []jetstream.StreamConfig, fs []functions.Function, since time.Time) (r Record, exact bool, err error) {
	var committed map[ledger.Key]time.Time
	err = snapshot.Read(ctx, pool, func(s *snapshot.Snapshot) error {
		committed, exact, err = s.CommitTimes(ctx, since)
		return err
	})
	if err != nil {
		return r, exact, err
	}
	for _, at := range committed {
		r.commits = append(r.commits, at)
	}
	slices.SortFunc(r.commits, time.Time.Compare)
	byType := map[string][]functions.Function{}
	for _, f := range fs {
		for _, t := range f.Types {
			byType[t] = append(byType[t], f)
		}
	}
	for _, stream := range streams {
		from, err := conn.SequenceAt(ctx, stream, since)
		if err != nil {
			return r, exact, err
		}
		if err := conn.History(ctx, stream, from, ^uint64(0), func(p jetstream.Past) error {
			for _, f := range byType[p.Event.Type()] {
				key := ledger.NewKey(f.Name, p.Event.Source(), p.Event.ID())
				at, ok := committed[key]
				if !ok {
					continue // dead, or forgotten; or a duplicate
				}
				delete(committed, key)
				r.events = append(r.events, handled{arrived: p.Arrived, committed: at})
			}
			return nil
		}); err != nil {
			return r, exact, err
		}
	}
	return r, exact, nil
}

// Phase is a part of a drill.
type Phase struct {
	Name string `json:"name"`

	// From and To count from the beginning of the drill.
	From time.Duration `json:"from"`
	To   time.Duration `json:"to"`

	// Events is the number of events that arrived in the phase. Half of them were
	// committed within P50 of their arrival in the stream, 99 of 100 within P99.
	Events int           `json:"events"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`

	// Gap is the longest time between two commits of which at least one was in the
	// phase, and GapAt its beginning.
	Gap   time.Duration `json:"longest_gap"`
	GapAt time.Duration `json:"longest_gap_at"`

	// Idle is the longest time in which no event arrived in the stream, so that only
	// earlier events could be committed.
	Idle time.Duration `json:"longest_idle"`
}

// measure returns the figures between two times. A gap that continues into the next
// phase counts there completely, and here up to the end of the phase.
func (r *Record) measure(name string, begun, from, to time.Time) Phase {
	p := Phase{Name: name, From: from.Sub(begun), To: to.Sub(begun)}
	var gapAt time.Time
	p.Gap, gapAt = longest(r.commits, from, to)
	p.GapAt = gapAt.Sub(begun)
	arrivals := make([]time.Time, len(r.events))
	var took []time.Duration
	for i, e := range r.events {
		arrivals[i] = e.arrived
		if !e.arrived.Before(from) && e.arrived.Before(to) {
			took = append(took, max(e.committed.Sub(e.arrived), 0))
		}
	}
	slices.SortFunc(arrivals, time.Time.Compare)
	p.Idle, _ = longest(arrivals, from, to)
	slices.Sort(took)
	if p.Events = len(took); p.Events > 0 {
		p.P50, p.P99 = took[p.Events/2], took[p.Events*99/100]
	}
	return p
}

// Gap returns the longest time between two commits of which at least one was between
// two times.
func (r *Record) Gap(from, to time.Time) time.Duration {
	gap, _ := longest(r.commits, from, to)
	return gap
}

// longest returns the longest gap between times, which are sorted, and its beginning.
func longest(times []time.Time, from, to time.Time) (gap time.Duration, began time.Time) {
	last := from
	began = from
	for _, at := range times {
		if !at.After(from) {
			last = at
			continue
		}
		if at.After(to) {
			at = to
		}
		if d := at.Sub(last); d > gap {
			gap, began = d, last
		}
		if last = at; !at.Before(to) {
			return gap, began
		}
	}
	if d := to.Sub(last); d > gap {
		gap, began = d, last
	}
	return gap, began
}

// Through returns the time at which all events that had arrived before a time were
// committed; that time itself if they were committed by then.
func (r *Record) Through(before time.Time) time.Time {
	last := before
	for _, e := range r.events {
		if e.arrived.Before(before) {
			last = later(last, e.committed)
		}
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// rates returns the commits per second, for each 200 ms between two times.
func (r *Record) rates(begun, end time.Time) []float64 {
	const width = 200 * time.Millisecond
	rates := make([]float64, max(1, int(end.Sub(begun)/width)))
	for _, at := range r.commits {
		if i := int(at.Sub(begun) / width); i >= 0 && i < len(rates) && !at.Before(begun) {
			rates[i] += float64(time.Second / width)
		}
	}
	return rates
}
