package sinkwriter

import (
	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Offer holds the effects that a function computed from one event, to be
// committed unless another cluster was faster.
type Offer struct {
	// Function and Version identify the function that computed the effects.
	// Function is part of the key.
	Function, Version string

	// Event is the input. Its source and id are part of the key.
	Event event.Event

	// Effects are the rows to write and the outputs to publish. They must not
	// be changed until Commit returns.
	Effects functions.Effects

	// Deferred reports that the event may be deferred (package deferred): the transaction
	// that commits it deletes its deferred events of all clusters.
	Deferred bool
}

// Receipt is the outcome of an offer. Losing is a normal outcome and not an
// error: a caller that only needs the event to be processed can ignore it.
type Receipt struct {
	// Key is the event's key in the ledger.
	Key ledger.Key

	// Won is true for at most one offer of a key, ever. It is true for none if
	// the winner's connection was lost before the answer to COMMIT arrived, so
	// required work must not depend on it.
	Won bool

	// Diverged is true for a lost offer whose effects differ from the winner's
	// although both were computed by the same version of the function. The
	// winner's effects stay committed.
	Diverged bool

	// Digest is the first half of the SHA-256 of the effects that the winner
	// committed, as stored in the ledger. It is zero if Config.NoDivergence is
	// set. If only the winner's writer had that set, the ledger stores no
	// digest, and Digest is that of the lost offer's effects.
	Digest [16]byte
}
