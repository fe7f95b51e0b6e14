package e2e

import "time"

// Names of the rows.
const (
	RowSingle     = "e2e-single"
	RowBatch      = "e2e-batch"
	RowByHand     = "e2e-by-hand"
	RowSingleAll  = "e2e-single-all"
	RowBatchAll   = "e2e-batch-all"
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

	byHand  []int // workers to try; the best counts
	batch   int   // events a request at most
	all     bool  // each cluster computes everything, also when it is behind
	rate    bool  // its highest rate is measured, and latencies at half of it
	alone   bool  // one cluster only
	stalls  bool  // the computation of the last cluster
	stops   bool  // the processes of the last cluster
	pending bool  // no trial: the memory of a source
}

// Rows are all rows.
func Rows() []Row {
	return []Row{
		{
			Name: RowByHand, byHand: []int{8, 16, 32, 64}, rate: true,
			About: "as people write it: two consumers, a transaction an event, a poller; no HTTP; the best of 8 to 64 workers each",
		},
		{Name: RowSingle, batch: 1, rate: true, About: "two clusters racing, an event a request"},
		{Name: RowBatch, batch: batchEvents, rate: true, About: "two clusters racing, batches"},
		{Name: RowSingleAll, batch: 1, all: true, rate: true, About: "e2e-single with TANDEM_CATCH_UP_LAG=-1: each cluster computes everything, however much waits"},
		{Name: RowBatchAll, batch: batchEvents, all: true, rate: true, About: "the same with batches"},
		{Name: RowNoStall, batch: 1, About: "two healthy clusters at --e2e-rate"},
		{Name: RowStallAlone, batch: 1, alone: true, stalls: true, About: "one cluster whose computations sleep 200 ms once a second"},
		{Name: RowStallRace, batch: 1, stalls: true, About: "the same beside a healthy one"},
		{Name: RowStopAlone, batch: 1, alone: true, stops: true, About: "one cluster whose processes are stopped 200 ms once a second"},
		{Name: RowStopRace, batch: 1, stops: true, About: "the same beside a healthy one"},
		{Name: RowPending, pending: true, About: "memory of a source with millions of messages pending (--pending) and a function that answers 503; only if named"},
	}
}

// batchEvents is how many events a request of row e2e-batch has at most.
const batchEvents = 128

// Long reports whether the row is measured only if it is named.
func (r Row) Long() bool { return r.pending }
