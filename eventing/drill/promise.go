package drill

import (
	"fmt"
	"time"
)

const (
	// HedgeDelay is the delay of the cluster that hedges in the scenario hedge-takeover.
	HedgeDelay = 300 * time.Millisecond

	// SourceTakeover is the maximum time until another replica of a source delivers after
	// the active one was killed or has stalled.
	SourceTakeover = 5 * time.Second

	// SourceHandover is the maximum time until it delivers after the active one ended
	// in an orderly way.
	SourceHandover = time.Second

	// claimTimeout is how long a cluster that disappeared can block the others.
	claimTimeout = 200 * time.Millisecond

	// tolerance is added to the longest gap before the strike.
	tolerance = 100 * time.Millisecond
)

// Conditions are the values that the allowed gap of a scenario depends on.
type Conditions struct {
	// Before is the longest gap before the strike.
	Before time.Duration

	// Lag is how long the standby database has received nothing when the primary is
	// lost, and Reaction the time until operators act.
	Lag, Reaction time.Duration

	// Witness reports whether a witness promotes the standby database.
	Witness bool
}

// AllowedGap returns the longest gap between commits that a scenario allows, with the
// reason. Ok is false for an unknown scenario.
func AllowedGap(scenario string, c Conditions) (limit time.Duration, why string, ok bool) {
	switch scenario {
	case "lose-cluster", "lose-half-database", "lose-half-stream", "link-cut":
		return c.Before + claimTimeout + tolerance, fmt.Sprintf("the claim timeout (%s) + %s more than the longest gap before", claimTimeout, tolerance), true
	case "hedge-takeover":
		return c.Before + HedgeDelay + claimTimeout + tolerance, fmt.Sprintf("the hedge (%s) + the claim timeout (%s) + %s more than the longest gap before", HedgeDelay, claimTimeout, tolerance), true
	case "standby-on":
		return c.Reaction + c.Before + 3*time.Second, fmt.Sprintf("the reaction (%s) + 3 s to read the hedge and look up the ledger", c.Reaction), true
	case "stream-leader":
		return 15 * time.Second, "NATS elects another leader in up to 9 s", true
	case "database-failover":
		return c.Lag + 30*time.Second, fmt.Sprintf("the lag (%s), to detect, to promote and to connect again: 30 s", c.Lag), true
	case "lose-primary":
		if c.Witness {
			return 30 * time.Second, "to detect, to promote and to connect again: 30 s", true
		}
		return c.Reaction + 30*time.Second, fmt.Sprintf("the reaction (%s), to promote and to connect again: 30 s", c.Reaction), true
	case "source-replicas":
		return SourceTakeover, "the lease expires, and another replica of the source takes it: 5 s", true
	case "failback":
		return 30 * time.Second, "to stop, to promote and to connect again: 30 s", true
	}
	return 0, "", false
}
