package inflight

import "time"

const (
	// retryShare is the share of the capacity for redeliveries of failing events: of
	// the concurrent requests, and of the function's time.
	retryShare = 10

	// slowShare is the share of the requests for slow events: those whose batches were
	// answered before them. They may hang.
	slowShare = 2

	// A redelivery costs its duration. It costs at least minRetryCost, which is about the work
	// of the source itself, and at most longRetry times the duration of other requests, within
	// minLongRetry and maxLongRetry: a longer one waits, and does not compute.
	minRetryCost = 2 * time.Millisecond
	longRetry    = 4
	minLongRetry = 100 * time.Millisecond
	maxLongRetry = 2 * time.Second

	// retryBurst is how much of the budget may be saved up: redeliveries are spread over
	// time, even after an outage.
	retryBurst = 20 * time.Millisecond
)

// budget bounds the redeliveries of failing events by the function's time: they may use a
// tenth of the used time, or of fewRequests concurrent requests if that is more. Its unit
// is the duration of a request.
type budget struct {
	saved       time.Duration // for redeliveries; below 0 after one that took longer than expected
	savedAt     time.Time
	cost        time.Duration // approximately, of a redelivery
	retrying    int           // redeliveries in requests
	sendingSlow int           // slow events in requests
}

// takeRetry returns the failing entry that is sent next; nil if there is none, or the
// budget is used. Then it returns the time until an entry can be sent, if that is
// before idle.
func (t *Table) takeRetry(now time.Time, idle time.Duration) (*Entry, time.Duration) {
	if t.again.Len() == 0 || t.retrying >= max(1, t.cfg.InFlight/retryShare) {
		return nil, idle
	}
	t.save(now, 0)
	if t.saved < 0 {
		return nil, min(idle, -t.saved*retryShare/fewRequests+1)
	}
	for t.again.Len() > 0 {
		e := t.again.take()
		if !t.hold(e) {
			return e, 0
		}
		t.signal() // e now waits for a probe
	}
	return nil, idle
}

// save adds to the budget the capacity that was free since the last call, and the share
// of a request's duration.
func (t *Table) save(now time.Time, took time.Duration) {
	if !t.savedAt.IsZero() {
		t.saved += now.Sub(t.savedAt) * fewRequests / retryShare
	}
	t.savedAt = now
	t.saved = min(t.saved+took/(retryShare-1), retryBurst)
}

// spend charges the expected cost of a redelivery.
func (t *Table) spend(e *Entry) {
	t.retrying++
	t.cost = max(t.cost, t.leastCost())
	e.charged = t.cost
	t.saved -= e.charged
}

// leastCost returns the minimum cost of a redelivery. With a rate, it lets redeliveries
// use a tenth of the rate.
func (t *Table) leastCost() time.Duration {
	if t.cfg.Rate == 0 {
		return minRetryCost
	}
	return max(minRetryCost, fewRequests*time.Second/time.Duration(t.cfg.Rate))
}

// spent corrects the charge of a redelivery by its duration.
func (t *Table) spent(e *Entry, took time.Duration) {
	t.retrying--
	cost := max(t.leastCost(), min(took, max(minLongRetry, longRetry*t.takes), maxLongRetry))
	t.cost += (cost - t.cost) / 8
	t.saved = max(t.saved+e.charged-cost, -cost) // concurrent ones pay once
}
