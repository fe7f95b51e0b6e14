package inflight

import (
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// State is the state of an [Entry].
type State uint8

// The states; package source has the diagram.
const (
	stateWaiting   State = iota // for a time: a retry, a hedge delay, the next lookup of a standby
	stateAsking                 // for a lookup, or being looked up
	stateLeft                   // left to another cluster that catches up too
	stateBlocked                // behind another event of its subject
	stateHeld                   // behind the probe of its type, for which the function is unavailable
	stateDue                    // to be sent when the budget of failing events, or the share of slow ones, allows it
	stateReady                  // to be delivered
	stateSending                // in a request
	stateDeferring              // to be stored, until the deployment changes
	stateStoring                // to be stored in the database
	Finished                    // acknowledged
)

// String returns the name of the state in metrics.
func (s State) String() string {
	return [...]string{"waiting", "asking", "left", "blocked", "probe", "budget", "ready", "sending", "deferring", "storing", "finished"}[s]
}

const (
	// entryOverhead is the approximate memory of an entry in addition to its payload, and
	// stubOverhead that of one whose payload is evicted. Together they may take stubShare
	// times the memory for payloads.
	entryOverhead = 2 << 10
	stubOverhead  = 1 << 10
	stubShare     = 2

	// memberOverhead is the approximate size of an event in a batch in addition to its
	// payload.
	memberOverhead = 64
)

// EventID is the identity of an event.
type EventID struct {
	Source, ID string
}

// Entry is a message from its receipt until it is finished. Between [Table.NextRequest]
// or [Table.NextLookup] and the report of the result, it belongs to the caller;
// otherwise to the table.
type Entry struct {
	Message  eventing.Message // without payload if Evicted
	Delivery *delivery.Delivery
	ID       EventID
	Type     string // of the event, even if Evicted
	Subject  string
	Evicted  bool

	partition  *Partition
	generation int // of the partition, when it was received
	sequence   uint64

	state       State
	counted     bool // in the partition's counts
	size        int  // in memory
	payload     int  // in a request
	received    time.Time
	heartbeatAt time.Time // when its latest heartbeat was sent to the stream

	due     time.Time
	retry   bool // waits for a retry: while the cluster races, it is sent without a lookup
	hedged  bool // waits for the hedge
	lookups int  // how often it was found uncommitted
	taken   bool // is being looked up
	early   bool // is looked up before it is due
	failing bool // was delivered without success; the budget covers its redeliveries
	slow    bool // its batch was answered before it
	mine    bool // is no longer left to another cluster
	checks  bool // is looked up before it is sent, because other clusters may have taken it
	helps   bool // another cluster goes first with it, and this one takes it with idle capacity
	wasLeft bool // was left to another cluster, and is looked up
	lane    *lane

	mayBeStored bool // behind a dead letter, and counts as stored: storing it had no answer

	typeCircuit *circuit      // of its type
	lookedUp    time.Time     // while it waited for a probe, for the budget, or to be sent
	circuit     *circuit      // under which it was last sent or held
	attempts    int           // under this circuit, without success
	probing     *circuit      // while it is a probe, or one of the entries that follow it
	charged     time.Duration // to the budget, while it is redelivered

	suspect    bool    // its connection broke after it was sent
	breaks     int     // how many of its trials broke their connections
	strike     *strike // its latest trial, until the strike counts
	chosen     bool    // to be tried next, with a lease
	aside      bool    // its trial continues beside others
	leaseUntil time.Time
	accuses    []*strike // trials whose connections broke with it
}

// Sequence returns the position of the message in its partition.
func (e *Entry) Sequence() uint64 { return e.sequence }

// Partition returns the partition from which the message was read.
func (e *Entry) Partition() *Partition { return e.partition }

// GoesTogether reports whether e may be sent with other entries.
func (e *Entry) GoesTogether() bool {
	return !e.failing && e.probing == nil && !e.Delivery.Alone && !e.Delivery.DeadLetter
}

// to moves e to a state. It is called with the table's lock held.
func (e *Entry) to(s State) {
	if e.checks && s != stateAsking {
		e.partition.table.checkEnded(e)
	}
	if e.helps && s != stateAsking && s != stateBlocked && s != stateReady && s != stateSending {
		e.partition.table.helped(e)
	}
	if s == Finished {
		e.partition.table.decided(e, !e.Delivery.DeadLetter && !e.stale())
		e.partition.table.leaveCircuit(e)
	}
	if !e.stale() {
		if e.counted {
			e.partition.counts[e.state]--
		}
		if e.counted = s != Finished; e.counted {
			e.partition.counts[s]++
		}
	}
	e.state, e.hedged = s, false
}

// evict drops the payload. It is called with the table's lock held.
func (e *Entry) evict() (freed int) {
	e.Message, e.Evicted = e.Message.WithoutPayload(), true
	e.Delivery.Event = event.Event{}
	e.Delivery.Forget()
	freed = e.size
	e.size = 0
	return freed
}

// before is the order of service: that of the streams, as far as they define one.
func (e *Entry) before(other *Entry) bool {
	if e.partition == other.partition {
		return e.sequence < other.sequence
	}
	if a, b := e.Message.Arrived(), other.Message.Arrived(); !a.Equal(b) {
		return a.Before(b)
	}
	return e.sequence < other.sequence
}
