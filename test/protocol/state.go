package protocol

// clusters is how many there are.
const clusters = 2

// maxEvents bounds the events of a model.
const maxEvents = 2

// set is a set of events.
type set uint8

func (s set) has(e int) bool    { return s>>e&1 == 1 }
func (s set) without(t set) set { return s &^ t }
func of(e int) set              { return 1 << e }
func below(e int) set           { return 1<<e - 1 }

// state is all there is to know at a moment. It is comparable, and small.
type state struct {
	primary  store
	copied   store // what the standby has, once it has its last piece
	hasCopy  bool
	timeline uint8 // 1 after the failover, 0 again once the former primary took over
	former   store // what the primary had when it was lost, until it takes over again
	failback failback
	lost     set // in a mutant, what the ledger of the primary that was lost had

	emitted [maxEvents]set // by event, which identities the stream of outputs has
	relay   relay
	cluster [clusters]cluster
}

// store is what is committed.
type store struct {
	ledger  set
	applied [maxEvents]uint8 // how often, up to 2
	outbox  set
	late    set // of what is in the outbox: it was computed after the failover

	rejected set // outputs that are set aside

	floor   [clusters]uint8
	on      [clusters]uint8 // the timeline on which floor was saved
	horizon uint8
}

// relay is the one that has taken over a row of the outbox, in whichever cluster.
type relay struct {
	at    relayAt
	event uint8
}

// failback is where the primary that was lost is.
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

// cluster is what one of them has in memory, and its place in the stream.
type cluster struct {
	acked    set // what its consumer has
	answered set // what the source has an answer for, and has not acknowledged

	// The function: the events of its transaction, and whose requests somebody
	// still waits for. Idle if batch is empty.
	batch, waited set

	// Its session: keys that the claim has not come to yet, and keys that it has
	// inserted.
	want, locks set

	// lookUp is set once the session has lost the first key of its claim: it has won nothing,
	// and the function looks the others up before it claims those that are missing.
	lookUp bool

	// committing are the keys of a transaction whose connection is lost, with
	// COMMIT on its way.
	committing set

	// What it has won and not published, and what is published and may be deleted.
	toPublish, toDelete set

	// Its outputs that were rejected for good, and are not set aside yet.
	toSetAside set

	// saved is one more than the timeline on which the source saved last, as far as it
	// knows; 0 after its start.
	saved uint8

	// The source is in the middle of a rewind: it has put its place back, and not
	// adopted the timeline yet.
	rewinding bool

	late  set  // of toPublish: as in store
	stale bool // it has numbers of rows that were lost with the primary
}
