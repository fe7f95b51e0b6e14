package protocol

// Mutant is a rule of the protocol that is broken.
type Mutant string

// The mutants. None is the protocol as it is.
const (
	None Mutant = ""

	// EarlyAck answers a request before COMMIT was.
	EarlyAck Mutant = "early-ack"
	// UnknownIsDone takes a connection lost during COMMIT for a success.
	UnknownIsDone Mutant = "unknown-is-done"
	// LooseClaim looks whether the key is there, and applies if it is not.
	LooseClaim Mutant = "loose-claim"
	// ClaimOutside commits the claim before the transaction that applies.
	ClaimOutside Mutant = "claim-outside"
	// NoWait takes a key that somebody has inserted and not committed for lost.
	NoWait Mutant = "no-wait"
	// LostTogether takes all keys of a claim for lost if the first one is.
	LostTogether Mutant = "lost-together"
	// LookUpUncommitted takes keys for lost that another session has inserted and not committed,
	// once the first one is lost.
	LookUpUncommitted Mutant = "look-up-uncommitted"
	// Unsorted has one of the clusters claim in another order.
	Unsorted Mutant = "unsorted"
	// NoTimeout leaves a session that waits for its client alone.
	NoTimeout Mutant = "no-timeout"
	// AskUncommitted has a hedging source believe claims that are not committed.
	AskUncommitted Mutant = "ask-uncommitted"
	// PublishEarly publishes what was won before it is committed.
	PublishEarly Mutant = "publish-early"
	// NoOutbox publishes from memory alone.
	NoOutbox Mutant = "no-outbox"
	// DeleteFirst has the winner delete before it has published.
	DeleteFirst Mutant = "delete-first"
	// RelayDeletesFirst has the relay do so.
	RelayDeletesFirst Mutant = "relay-deletes-first"
	// AsideAfterDelete has the winner delete a rejected output from the outbox before it
	// has set it aside.
	AsideAfterDelete Mutant = "aside-after-delete"
	// NoRelay leaves to the winner what it left behind.
	NoRelay Mutant = "no-relay"

	// NoRewind saves progress whatever the timeline is.
	NoRewind Mutant = "no-rewind"
	// TrustFloor takes a timeline that the source did not save on last, with a floor that was
	// saved on it, for one that another process has rewound the stream for.
	TrustFloor Mutant = "trust-floor"
	// AdoptFirst adopts the timeline before it has rewound.
	AdoptFirst Mutant = "adopt-first"
	// AskLost believes, after a failover, what the ledger of the primary that was lost
	// says.
	AskLost Mutant = "ask-lost"
	// FloorElsewhere keeps the floors in another database.
	FloorElsewhere Mutant = "floor-elsewhere"
	// FloorAhead saves the place after the foremost message acknowledged.
	FloorAhead Mutant = "floor-ahead"
	// KeepRequests believes, after a rewind, answers to requests before it.
	KeepRequests Mutant = "keep-requests"
	// RandomIDs gives each computation of an output another identity.
	RandomIDs Mutant = "random-ids"
	// ReusedRows numbers the rows of the outbox after a failover as those before
	// it that were lost.
	ReusedRows Mutant = "reused-rows"

	// NoHorizon forgets rows of the ledger and does not say so.
	NoHorizon Mutant = "no-horizon"
	// ForemostForgets forgets what one cluster has acknowledged.
	ForemostForgets Mutant = "foremost-forgets"
)
