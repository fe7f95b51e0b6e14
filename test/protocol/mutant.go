package protocol

// Mutant is a broken rule of the protocol.
type Mutant string

// The mutants. None is the correct protocol.
const (
	None Mutant = ""

	// EarlyAck answers a request before COMMIT.
	EarlyAck Mutant = "early-ack"
	// UnknownIsDone treats a connection lost during COMMIT as success.
	UnknownIsDone Mutant = "unknown-is-done"
	// LooseClaim checks whether the key exists, and applies if it does not.
	LooseClaim Mutant = "loose-claim"
	// ClaimOutside commits the claim before the transaction that applies.
	ClaimOutside Mutant = "claim-outside"
	// NoWait treats a key that another session has inserted and not committed as
	// lost.
	NoWait Mutant = "no-wait"
	// LostTogether treats all keys of a claim as lost if the first one is.
	LostTogether Mutant = "lost-together"
	// LookUpUncommitted treats keys as lost that another session has inserted and not committed,
	// once the first one is lost.
	LookUpUncommitted Mutant = "look-up-uncommitted"
	// Unsorted makes one of the clusters claim in another order.
	Unsorted Mutant = "unsorted"
	// NoTimeout does not end a session that waits for its client.
	NoTimeout Mutant = "no-timeout"
	// AskUncommitted makes a hedging source rely on uncommitted claims.
	AskUncommitted Mutant = "ask-uncommitted"
	// PublishEarly publishes outputs before they are committed.
	PublishEarly Mutant = "publish-early"
	// NoOutbox publishes from memory alone.
	NoOutbox Mutant = "no-outbox"
	// DeleteFirst makes the winner delete before it has published.
	DeleteFirst Mutant = "delete-first"
	// RelayDeletesFirst makes the relay do so.
	RelayDeletesFirst Mutant = "relay-deletes-first"
	// AsideAfterDelete makes the winner delete a rejected output from the outbox before
	// it has stored it as rejected.
	AsideAfterDelete Mutant = "aside-after-delete"
	// NoRelay leaves the outputs of a dead winner to that winner.
	NoRelay Mutant = "no-relay"

	// NoRewind saves progress on any timeline.
	NoRewind Mutant = "no-rewind"
	// TrustFloor treats a timeline on which the source did not save last as rewound by
	// another process, if a floor was saved on it.
	TrustFloor Mutant = "trust-floor"
	// AdoptFirst adopts the timeline before it has rewound.
	AdoptFirst Mutant = "adopt-first"
	// AskLost relies, after a failover, on the ledger of the lost primary.
	AskLost Mutant = "ask-lost"
	// FloorElsewhere keeps the floors in another database.
	FloorElsewhere Mutant = "floor-elsewhere"
	// FloorAhead saves the position after the foremost acknowledged message.
	FloorAhead Mutant = "floor-ahead"
	// KeepRequests accepts, after a rewind, answers to earlier requests.
	KeepRequests Mutant = "keep-requests"
	// RandomIDs uses a new identity for each computation of an output.
	RandomIDs Mutant = "random-ids"
	// ReusedRows reuses, after a failover, the numbers of lost rows of the
	// outbox.
	ReusedRows Mutant = "reused-rows"

	// NoHorizon forgets rows of the ledger without recording the horizon.
	NoHorizon Mutant = "no-horizon"
	// ForemostForgets forgets events that only one cluster has acknowledged.
	ForemostForgets Mutant = "foremost-forgets"
)
