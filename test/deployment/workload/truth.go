package workload

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/hack/feed"
)

// Truth is the expected result, counted while events are generated.
type Truth struct {
	// Flights are counted by airport, Transfers all together; Balances are those of
	// the accounts after the transfers.
	Flights   map[string]feed.Totals
	Transfers int64
	Balances  map[string]int64

	// Noticed is how many transfers emit an event, Poison how many events can never
	// succeed, and Harmless how many of the type harm can.
	Noticed, Poison, Harmless int64
}

// Total returns the sum of the flights of all airports.
func (t Truth) Total() feed.Totals {
	var sum feed.Totals
	for _, totals := range t.Flights {
		sum = sum.Plus(totals)
	}
	return sum
}

// Events returns how many distinct events can succeed.
func (t Truth) Events() int64 { return t.Total().Flights + t.Transfers }

// Outputs returns the expected number of distinct outputs.
func (t Truth) Outputs() int64 { return t.Total().Delayed + t.Noticed }

// Differences compares the tables with the truth and returns the differences, one
// line each.
func (t Truth) Differences(ctx context.Context, pool *pgxpool.Pool) ([]string, error) {
	var differences []string
	check := func(what string, is, want int64) {
		if is != want {
			differences = append(differences, fmt.Sprintf("%s: %d, should be %d", what, is, want))
		}
	}
	var flights, minutes, transfers, harmless, letters int64
	if err := pool.QueryRow(ctx, `select (select coalesce(sum(flights), 0)::bigint from airports), (select coalesce(sum(delay_minutes), 0)::bigint from airports),
(select count(*) from transfers), (select count(*) from harm_events), (select count(distinct (function, source, id)) from tandem.dead_letter)`).Scan(&flights, &minutes, &transfers, &harmless, &letters); err != nil {
		return nil, err
	}
	want := t.Total()
	check("flights", flights, want.Flights)
	check("minutes of delay", minutes, want.DelayMinutes)
	check("transfers", transfers, t.Transfers)
	check("harmless events", harmless, t.Harmless)
	check("dead letters", letters, t.Poison)
	rows, err := pool.Query(ctx, `select account, balance from accounts`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var account string
		var balance int64
		if err := rows.Scan(&account, &balance); err != nil {
			return nil, err
		}
		found++
		check("balance of "+account, balance, t.Balances[account])
	}
	check("accounts", int64(found), int64(len(t.Balances)))
	slices.Sort(differences)
	return differences, rows.Err()
}
