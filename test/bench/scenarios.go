package main

import (
	"context"
	"time"
)

// lag is the lag of the second cluster in row late.
const lag = 500 * time.Millisecond

// scenario is a row of the table.
type scenario struct {
	name  string
	about string // one line, for --help

	// numbers of connections of each cluster to try; the best counts. Zero
	// selects the flag's value.
	connections []int

	template string // the database with which a trial begins; empty for empty tables
	byHand   bool   // measured with fewer events
	single   bool   // each event in a call of its own
	long     bool   // measured only with --only

	noDivergence bool // sinkwriter.Config.NoDivergence

	run func(ctx context.Context, t *trial) error
}

// byHandConnections are numbers of connections of a cluster. Which one is best
// depends on the machine.
var byHandConnections = []int{4, 16, 64}

// byHandEvents returns how many events a trial by hand has: enough for a rate.
func byHandEvents(events int) int { return max(min(events, 1000), events/50) }

// Names of rows that are used elsewhere.
const (
	rowFloor     = "floor"
	rowByHand    = "by-hand"
	rowPipelined = "by-hand-pipelined"
	rowOne       = "one"
	rowRace      = "race"
	rowLost      = "lost"
	rowLedger    = "ledger-10m"
	rowRetention = "retention"
	rowNoDigest  = "no-digest"
	rowFar       = "far"
)

func scenarios() []scenario {
	asFlags := []int{0}
	return []scenario{
		{
			name: rowFloor, connections: asFlags, run: runFloor,
			about: "bulk upsert of the rows alone: one writer on one connection, no ledger, no outbox",
		},
		{
			name: rowByHand, connections: byHandConnections, byHand: true, run: byHand(handleStepwise),
			about: "one transaction per event, two clusters; the best of 4, 16, 64 connections each",
		},
		{
			name: rowPipelined, connections: byHandConnections, byHand: true, run: byHand(handlePipelined),
			about: "the same in one statement, so one round trip",
		},
		{
			name: "by-hand-merge", connections: byHandConnections, byHand: true, run: byHand(handleMerge),
			about: "by-hand with MERGE: a concurrent loser fails with a unique violation",
		},
		{
			name: rowOne, connections: asFlags, run: runOne,
			about: "sinkwriter, one cluster",
		},
		{
			name: rowRace, connections: asFlags, run: race(workload{}),
			about: "two clusters offer every event",
		},
		{
			name: "single", connections: asFlags, run: race(workload{}), single: true,
			about: "race, with a separate call of Commit for each event",
		},
		{
			name: "late", connections: asFlags, run: runLate,
			about: "the second cluster offers each event 500 ms after the first",
		},
		{
			name: rowLost, connections: asFlags, run: runLost,
			about: "one cluster offers events that another has won before: the cost of losing",
		},
		{
			name: "hot", connections: asFlags, run: race(workload{hot: true}),
			about: "race, and all events add to the same 100 rows",
		},
		{
			name: "hot-numeric", connections: asFlags, run: race(workload{hot: true, money: true}),
			about: "the same with numeric(14, 2) instead of bigint",
		},
		{
			name: rowLedger, connections: asFlags, template: ledgerTemplate, run: race(workload{}),
			about: "race, with 10 million rows in the ledger beforehand",
		},
		{
			name: "ledger-10m-random", connections: asFlags, template: randomTemplate, run: race(workload{random: true}),
			about: "the same with ids without an order, so that keys are random",
		},
		{
			name: rowRetention, connections: asFlags, template: ledgerTemplate, run: runRetention,
			about: "the same, while the ledger deletes as many old rows as are added",
		},
		{
			name: rowNoDigest, connections: asFlags, run: race(workload{}), noDivergence: true,
			about: "race, without divergence detection",
		},
		{
			name: rowFar, connections: asFlags, run: runFar,
			about: "one cluster whose round trip to the database takes 80 ms",
		},
		{
			name: "window", connections: asFlags, template: ledgerTemplate, run: runWindow, long: true,
			about: "race until all of the 10 million rows are new ones; only if selected with --only",
		},
	}
}
