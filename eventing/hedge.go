package eventing

import (
	"fmt"
	"time"
)

// MaxHedge is the longest delay of a [Hedge]. While a message waits for it, the
// stream holds it as handed out.
const MaxHedge = time.Minute

// Hedge is how much redundancy a cluster wants for a function. Its zero value is
// the race: all clusters compute everything at once.
type Hedge struct {
	// Delay is how long a message waits, from its receipt, before the ledger is
	// asked whether another cluster has done it. From 0 to [MaxHedge].
	Delay time.Duration

	// Standby delivers nothing. What others have done is acknowledged.
	Standby bool

	// Share has one of the clusters that share go first with each event. The others compute
	// what is not committed after a delay, which is no part of the Hedge.
	Share bool
}

// ParseHedge reads what [Hedge.String] gives, and "race" for 0. The error says
// what it wants instead.
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

// String gives 0, the delay, share, or standby.
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
