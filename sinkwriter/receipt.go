package sinkwriter

import (
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Offer is what one function computed from one event, to be committed if nobody
// was faster.
type Offer struct {
	// Function and Version name who computed it. Function is part of the key.
	Function, Version string

	// Event is the input. Its source and id are part of the key.
	Event event.Event

	// Effects are what to write and what to emit. They must not be changed
	// until Commit has returned.
	Effects functions.Effects

	// Deferred is true if the event may be deferred (package deferred): in the transaction
	// that commits it, its deferred events of all clusters are deleted.
	Deferred bool
}

// Receipt says what became of an offer. Losing is a normal outcome and not an
// error: a caller that only wants the event handled can ignore it.
type Receipt struct {
	// Key is the event's key in the ledger.
	Key ledger.Key

	// Won is true for at most one of the offers of a key, ever. It is true for
	// none if the winner lost its connection before the answer to COMMIT
	// reached it, so nothing that must happen may hang on it.
	Won bool

	// Diverged is true for a loser whose effects differ from the winner's
	// although both ran the same version of the function. What the winner
	// committed stands.
	Diverged bool

	// Digest is the first half of the SHA-256 of the effects that the winner
	// committed, as the ledger stores it. It is zero if Config.NoDivergence is
	// set. If only the winner's writer had it set, the digest is that of the
	// loser's effects, as the ledger has none.
	Digest [16]byte
}
