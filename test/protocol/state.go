package protocol

// clusters is the number of clusters.
const clusters = 2

// maxEvents bounds the events of a model.
const maxEvents = 2

// set is a set of events.
type set uint8

func (s set) has(e int) bool    { return s>>e&1 == 1 }
func (s set) without(t set) set { return s &^ t }
func of(e int) set              { return 1 << e }
func below(e int) set           { return 1<<e - 1 }

// state is a state of the model. It is comparable, and small.
type state struct {
	primary  store
	copied   store // the content of the standby after it has received its last piece
	hasCopy  bool
	timeline uint8 // 1 after the failover, 0 again once the former primary took over
	former   store // the content of the primary when it was lost, until it takes over again
	failback failback
	lost     set // in a mutant, the ledger of the lost primary

	emitted [maxEvents]set // by event, the identities in the stream of outputs
	relay   relay
	cluster [clusters]cluster
}

// store holds the committed data.
type store struct {
	ledger  set
	applied [maxEvents]uint8 // how often, up to 2
	outbox  set
	late    set // of the outbox: computed after the failover

	rejected set // rejected outputs

	floor   [clusters]uint8
	on      [clusters]uint8 // the timeline on which floor was saved
	horizon uint8
}

// relay is the relay that has taken over a row of the outbox, in either cluster.
type relay struct {
	at    relayAt
	event uint8
}

// failback is the state of the lost primary.
type failback uint8

const (
	notLost failback = iota
	isLost
	isBack
)

type relayAt uint8

const (
	relayIdle relayAt = iota
	relayTaken
	relayHalf // published; in a mutant, deleted
)

// cluster holds the state in memory of a cluster, and its position in the stream.
type cluster struct {
	acked    set // what its consumer has acknowledged
	answered set // answers that the source has received, and not acknowledged

	// The function: the events of its transaction, and those whose requests are
	// still waiting. Idle if batch is empty.
	batch, waited set

	// Its session: keys that the claim has not reached yet, and keys that it has
	// inserted.
	want, locks set

	// lookUp is set once the session has lost the first key of its claim: it has won nothing,
	// and the function looks the others up before it claims those that are missing.
	lookUp bool

	// committing are the keys of a transaction whose connection is lost, with
	// COMMIT on its way.
	committing set

	// Events that it has won and not published, and events that are published and
	// may be deleted.
	toPublish, toDelete set

	// Its outputs that were rejected for good, and are not stored as rejected
	// yet.
	toSetAside set

	// saved is one more than the timeline on which the source saved last, as far as it
	// knows; 0 after its start.
	saved uint8

	// The source is rewinding: it has reset its position, and not adopted the
	// timeline yet.
	rewinding bool

	late  set  // of toPublish: as in store
	stale bool // it holds numbers of rows that were lost with the primary
}
