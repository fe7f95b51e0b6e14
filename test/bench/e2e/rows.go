package e2e

import "time"

// Names of the rows.
const (
	RowByHand     = "e2e-by-hand"
	RowDefaults   = "e2e"
	RowSingle     = "e2e-single"
	RowNoStall    = "no-stall"
	RowStallAlone = "stall-alone"
	RowStallRace  = "stall-race"
	RowStopAlone  = "stop-alone"
	RowStopRace   = "stop-race"
	RowPending    = "pending"
)

// stallLength is for how long a cluster stalls, once a second.
const stallLength = 200 * time.Millisecond

// Row is a line of the table.
type Row struct {
	Name  string
	About string // one line, for --help

	byHand  []int    // workers to try; the best counts
	env     []string // variables of the sources: none where a row measures the defaults
	rate    bool     // its highest rate is measured, and latencies at half of it
	alone   bool     // one cluster only
	stalls  bool     // the computation of the last cluster
	stops   bool     // the processes of the last cluster
	pending bool     // no trial: the memory of a source
}

// Rows are all rows.
func Rows() []Row {
	return []Row{
		{
			Name: RowByHand, byHand: []int{8, 16, 32, 64}, rate: true,
			About: "as people write it: two consumers, a transaction an event, a poller; no HTTP; the best of 8 to 64 workers each",
		},
		{Name: RowDefaults, rate: true, About: "two clusters with the defaults, which divide the backlog of a filled stream"},
		{Name: RowSingle, env: []string{"TANDEM_BATCH=1"}, rate: true, About: "the same with TANDEM_BATCH=1, one event a request"},
		{Name: RowNoStall, About: "two healthy clusters at --e2e-rate"},
		{Name: RowStallAlone, alone: true, stalls: true, About: "one cluster whose computations sleep 200 ms once a second"},
		{Name: RowStallRace, stalls: true, About: "the same beside a healthy one"},
		{Name: RowStopAlone, alone: true, stops: true, About: "one cluster whose processes are stopped 200 ms once a second"},
		{Name: RowStopRace, stops: true, About: "the same beside a healthy one"},
		{Name: RowPending, pending: true, About: "memory of a source with millions of messages pending (--pending) and a function that answers 503; only if named"},
	}
}

// Long reports whether the row is measured only if it is named.
func (r Row) Long() bool { return r.pending }
