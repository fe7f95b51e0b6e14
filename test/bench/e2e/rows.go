package e2e

import (
	"slices"
	"time"

	"github.com/tandem-fn/tandem/test/bench/e2e/orders"
)

// Names of the rows.
const (
	RowByHand     = "e2e-by-hand"
	RowDefaults   = "e2e"
	RowSingle     = "e2e-single"
	RowRaceByHand = "e2e-race-by-hand"
	RowRace       = "e2e-race"

	Row50ByHand = "latency-50-by-hand"
	Row50       = "latency-50"
	Row80       = "latency-80"
	RowNap50    = "nap-50"
	RowFreeze50 = "freeze-50"
	RowNap80    = "nap-80"
	RowFreeze80 = "freeze-80"
	RowSlowRace = "slow-race"
	RowSlow50   = "slow-50"

	RowNoStall    = "no-stall"
	RowStallAlone = "stall-alone"
	RowStallRace  = "stall-race"
	RowStopAlone  = "stop-alone"
	RowStopRace   = "stop-race"

	RowCatchUpSkip   = "catch-up-skip"
	RowCatchUpDivide = "catch-up-divide"
	RowCatchUpDeath  = "catch-up-death"

	RowOrderedEach  = "ordered-each"
	RowOrderedFew   = "ordered-few"
	RowOrderedHot   = "ordered-hot"
	RowOrderedTight = "ordered-tight"

	RowPending = "pending"
)

// Row is a line of the table.
type Row struct {
	Name  string
	About string // one line, for --help

	measure  measure
	byHand   bool     // two consumers written by hand, no clusters
	mode     *mode    // of the clusters, if the row measures one
	source   []string // variables of the sources: none in a row that measures the defaults
	function []string // variables of the functions
	alone    bool     // one cluster only
	service  bool     // a connection balancer is in front of the instances
	pinned   bool     // each cluster has a core of its own

	events  int                // limit for a filled stream; 0 for none
	least   int                // minimum of events in a filled stream, whatever the flags are
	subject func(n int) string // of event n; nil for none
	spoilt  string             // the kind of the bad events that are published beside good ones; empty for none
	slow    bool               // the events of orders.Slow sleep, and their latencies do not count

	share         float64 // fraction of the rate of e2e-race, e2e-race-by-hand or burn-race at which latencies are measured; 0 for --e2e-rate
	expected      float64 // the expected rate relative to the race that it is compared with, where a search starts; 0 for the same
	good, bad     int     // events a second in a row with bad events
	publishSpoilt bool    // publish the bad events

	strike  strike // what the last cluster suffers
	settles bool   // measure how long the strike has an effect

	of string // the row with which its rate or p99.9 is compared
}

// measure is the kind of measurement of a row.
type measure int

const (
	measureBacklog   measure = iota // the rate at which a filled stream is handled
	measureRace                     // the highest rate that an open loop sustains
	measureLatency                  // latencies in an open loop
	measureSkip                     // how fast a cluster that rejoins skips committed events
	measureDivide                   // how long two clusters take for a backlog, and how long one takes
	measureDeath                    // how long commits pause when one of two clusters with a backlog dies
	measurePending                  // the memory of a source
	measureBeside                   // good events beside bad ones
	measureInstances                // latencies around a strike against an instance of the function
	measureKill                     // latencies until the commit, in an open loop in which a cluster dies
)

// strike is the fault of the last cluster while latencies are measured.
type strike int

const (
	noStrike     strike = iota
	strikeStall         // all computations sleep, stallLength in every second
	strikeStop          // all processes are stopped, stallLength in every second
	strikeNap           // one computation sleeps, pauseLength in every pausePeriod
	strikeFreeze        // one process is stopped, the function and the source in turn, pauseLength in every pausePeriod

	strikeFreezeBoth // function and source are stopped for pauseLength, once
	strikeFreezeLong // the same for freezeLength
	strikeDatabase   // PostgreSQL is stopped for databaseLength

	// To the first instance of the function in each cluster.
	strikeHang // is stopped
	strikeKill // is killed
	strikeSlow // needs at least slowInstance for each computation
)

const (
	stallLength = 200 * time.Millisecond

	pauseLength = 300 * time.Millisecond
	pausePeriod = 10 * time.Second

	freezeLength   = 5 * time.Second
	databaseLength = 2 * time.Second
)

const (
	slowLength = time.Second // of orders.Slow

	// A function that waits is limited by its 8 places, not by the cores: a single
	// cluster handles at most 1,600 events a second.
	waitLength = 5 * time.Millisecond
)

// Rows returns all rows, each after those that it needs.
func Rows() []Row {
	ordered := func(name string, events int, subject func(n int) string, about string, env ...string) Row {
		return Row{
			Name: name, events: events, subject: subject, source: append([]string{"TANDEM_ORDERING=subject"}, env...),
			About: "a filled stream with TANDEM_ORDERING=subject, " + about,
		}
	}
	slow, wait := []string{"TANDEM_BENCH_SLOW=" + slowLength.String()}, []string{"TANDEM_BENCH_WAIT=" + waitLength.String()}
	rows := []Row{
		{Name: RowByHand, byHand: true, About: "a filled stream, two hand-written consumers: a transaction per event, a poller; no HTTP; the best of 8 to 64 workers each"},
		{Name: RowDefaults, of: RowByHand, About: "a filled stream, two clusters with the defaults, which divide the backlog"},
		{Name: RowSingle, of: RowByHand, source: []string{"TANDEM_BATCH=1"}, About: "the same with TANDEM_BATCH=1, one event per request"},
		{Name: RowRaceByHand, measure: measureRace, byHand: true, About: "the highest open-loop rate that both consumers by hand sustain with a lag below 1 s"},
		{Name: RowRace, measure: measureRace, of: RowRaceByHand, About: "the highest open-loop rate that both clusters, each computing everything, sustain with a lag below 1 s"},

		{Name: Row50ByHand, measure: measureLatency, byHand: true, share: 0.5, About: "latencies by hand at 50 % of its own highest rate"},
		{Name: Row50, measure: measureLatency, share: 0.5, About: "latencies at 50 % of the rate of e2e-race"},
		{Name: Row80, measure: measureLatency, share: 0.8, About: "latencies at 80 % of it"},
		{Name: RowNap50, measure: measureLatency, share: 0.5, strike: strikeNap, of: Row50, About: "latency-50 while one computation in one cluster sleeps 300 ms every 10 s"},
		{Name: RowFreeze50, measure: measureLatency, share: 0.5, strike: strikeFreeze, of: Row50, About: "latency-50 while one process is stopped for 300 ms every 10 s, function and source of one cluster in turn"},
		{Name: RowNap80, measure: measureLatency, share: 0.8, strike: strikeNap, of: Row80, About: "nap-50 at 80 %: does a lag remain?"},
		{Name: RowFreeze80, measure: measureLatency, share: 0.8, strike: strikeFreeze, of: Row80, About: "freeze-50 at 80 %: does a lag remain?"},
		{Name: RowSlowRace, measure: measureRace, function: slow, slow: true, of: RowRace, About: "e2e-race when 0.1 % of the events sleep 1 s"},
		{Name: RowSlow50, measure: measureLatency, share: 0.5, function: slow, slow: true, of: Row50, About: "latency-50 when 0.1 % of the events sleep 1 s: latencies of the others"},

		{Name: RowNoStall, measure: measureLatency, About: "two healthy clusters at --e2e-rate"},
		{Name: RowStallAlone, measure: measureLatency, alone: true, strike: strikeStall, of: RowNoStall, About: "one cluster whose computations sleep for 200 ms every second"},
		{Name: RowStallRace, measure: measureLatency, strike: strikeStall, of: RowNoStall, About: "the same beside a healthy one"},
		{Name: RowStopAlone, measure: measureLatency, alone: true, strike: strikeStop, of: RowNoStall, About: "one cluster whose processes are stopped for 200 ms every second"},
		{Name: RowStopRace, measure: measureLatency, strike: strikeStop, of: RowNoStall, About: "the same beside a healthy one"},

		{Name: RowCatchUpSkip, measure: measureSkip, least: leastToCatchUp, About: "a cluster rejoins, 60 ms from the database, with a committed backlog: events skipped per second"},
		{
			Name: RowCatchUpDivide, measure: measureDivide, events: 16_000, function: wait,
			About: "two clusters with a backlog and a function that waits 5 ms per event, 8 events at a time: time of two relative to one",
		},
		{
			Name: RowCatchUpDeath, measure: measureDeath, events: 16_000, least: leastToCatchUp, function: wait,
			About: "the same two, and one of them is killed meanwhile: the longest time between two later commits",
		},

		ordered(RowOrderedEach, 20_000, func(n int) string { return orders.Subject(n) }, "one subject per event"),
		ordered(RowOrderedFew, 5_000, func(n int) string { return orders.Subject(n % 16) }, "16 subjects"),
		ordered(RowOrderedHot, 5_000, func(n int) string { return orders.Subject((n % 2) * (1 + n%2000)) }, "half of the events of one subject, half of 1,000 others"),
		ordered(RowOrderedTight, 2_000, func(int) string { return orders.Subject(0) }, "one subject, TANDEM_IN_FLIGHT_BYTES at its minimum", "TANDEM_IN_FLIGHT_BYTES=1048576"),

		{Name: RowPending, measure: measurePending, About: "memory of a source with millions of messages pending (--pending) and a function that answers 503; only if named"},
	}
	return slices.Concat(rows, modeRows(), settleRows(), instanceRows(), besideRows())
}

// Long reports whether the row is measured only if it is selected by name.
func (r Row) Long() bool { return r.measure == measurePending }

// race returns the name of the row whose highest rate determines the row's own; "" if
// there is none.
func (r Row) race() string {
	switch {
	case r.Name == RowBurnRace:
		return ""
	case r.settles:
		return RowShareCores
	case r.mode != nil && r.function != nil:
		return RowBurnRace
	case r.measure == measureLatency && r.share > 0 && r.byHand:
		return RowRaceByHand
	case r.measure == measureLatency && r.share > 0, r.Name == RowSlowRace, r.mode != nil:
		return RowRace
	}
	return ""
}

// withRaces adds the rows whose rates the selected rows need.
func withRaces(selected []Row) []Row {
	wanted := map[string]bool{}
	for _, r := range selected {
		wanted[r.Name] = true
	}
	rows := Rows()
	for _, r := range slices.Backward(rows) {
		wanted[r.race()] = wanted[r.race()] || wanted[r.Name]
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return !wanted[r.Name] })
}
