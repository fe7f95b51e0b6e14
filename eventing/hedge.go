package eventing

import (
	"fmt"
	"time"
)

// MaxHedge is the longest delay of a [Hedge]. The stream counts a message that waits
// for it as delivered and unacknowledged.
const MaxHedge = time.Minute

// Hedge is the redundancy of a function in a cluster. The zero value is the race: all
// clusters compute every event at once.
type Hedge struct {
	// Delay is the time between receiving a message and looking it up in the ledger; it
	// is delivered if no cluster has committed it. From 0 to [MaxHedge].
	Delay time.Duration

	// Standby delivers nothing. Messages that other clusters have committed are
	// acknowledged.
	Standby bool

	// Share assigns each event to one of the clusters that share; the others compute it
	// only if it is not committed after a delay, which is not part of the Hedge.
	Share bool
}

// ParseHedge parses the result of [Hedge.String]; it also accepts "race" for 0. The
// error states the accepted values.
func ParseHedge(s string) (Hedge, error) {
	switch s {
	case "race", "0":
		return Hedge{}, nil
	case "standby":
		return Hedge{Standby: true}, nil
	case "share":
		return Hedge{Share: true}, nil
	}
	delay, err := time.ParseDuration(s)
	if err != nil || delay < 0 || delay > MaxHedge {
		return Hedge{}, fmt.Errorf("%q: want 0 (race), a delay up to %s as 300ms (hedge), share, or standby", s, MaxHedge)
	}
	return Hedge{Delay: delay}, nil
}

// String returns 0, the delay, share, or standby.
func (h Hedge) String() string {
	switch {
	case h.Standby:
		return "standby"
	case h.Share:
		return "share"
	case h.Delay == 0:
		return "0"
	}
	return h.Delay.String()
}

// Race reports whether messages are delivered at once.
func (h Hedge) Race() bool { return h == Hedge{} }
