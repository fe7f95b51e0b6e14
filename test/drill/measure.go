package main

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// handled is an event's way: when it came, and when it was committed.
type handled struct{ arrived, committed time.Time }

// record is what was read about the time of a drill.
type record struct {
	commits []time.Time // sorted; for the gaps
	events  []handled
}

// readRecord reads what came since a time, and when it was committed. Exact says that
// the database has kept when transactions were committed, and not only when they began.
func readRecord(ctx context.Context, pool *pgxpool.Pool, conn *jetstream.Conn, streams []jetstream.StreamConfig, fs []functions.Function, since time.Time) (r record, exact bool, err error) {
	var setting string
	if err := pool.QueryRow(ctx, "show track_commit_timestamp").Scan(&setting); err != nil {
		return r, false, err
	}
	exact = setting == "on"
	committed, err := readCommits(ctx, pool, exact, since)
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
				key := sinkwriter.NewKey(f.Name, p.Event.Source(), p.Event.ID())
				at, ok := committed[key]
				if !ok {
					continue // dead, or forgotten; or the same event once more
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

func readCommits(ctx context.Context, pool *pgxpool.Pool, exact bool, since time.Time) (map[sinkwriter.Key]time.Time, error) {
	sql := `select key, committed_at from tandem.ledger where committed_at >= $1`
	if exact {
		sql = `select key, coalesce(pg_xact_commit_timestamp(xmin), committed_at) from tandem.ledger where committed_at >= $1`
	}
	rows, err := pool.Query(ctx, sql, since)
	if err != nil {
		return nil, err
	}
	commits := map[sinkwriter.Key]time.Time{}
	var key [16]byte
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&key, &at}, func() error {
		commits[key] = at
		return nil
	})
	return commits, err
}

// phase is a part of the drill.
type phase struct {
	Name string `json:"name"`

	// From and To count from the beginning of the drill.
	From time.Duration `json:"from"`
	To   time.Duration `json:"to"`

	// Events came in it, and Missing of them are not committed at the end. Half of
	// them were committed within P50 of their arrival in the stream, 99 of 100 within
	// P99.
	Events int           `json:"events"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`

	// Gap is the longest time between two commits of which one was in it, and GapAt
	// when that began.
	Gap   time.Duration `json:"longest_gap"`
	GapAt time.Duration `json:"longest_gap_at"`

	// Idle is the longest time in which the stream took no event, so that there was
	// nothing to commit but what had come before.
	Idle time.Duration `json:"longest_idle"`
}

// measure says what happened between two times. A gap that reaches into the next phase
// counts there as a whole, and here as far as it is here.
func (r *record) measure(name string, begun, from, to time.Time) phase {
	p := phase{Name: name, From: from.Sub(begun), To: to.Sub(begun)}
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

// longest finds the longest gap between times, which are sorted, and when it began.
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

// through is when all that came before a time was committed; that time if it was by
// then.
func (r *record) through(before time.Time) time.Time {
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

// rates gives the commits a second, for each fifth of a second between two times.
func (r *record) rates(begun, end time.Time) []float64 {
	const width = 200 * time.Millisecond
	rates := make([]float64, max(1, int(end.Sub(begun)/width)))
	for _, at := range r.commits {
		if i := int(at.Sub(begun) / width); i >= 0 && i < len(rates) && !at.Before(begun) {
			rates[i] += float64(time.Second / width)
		}
	}
	return rates
}
