package inflight

import "time"

const (
	// retryShare is the share of the capacity that redeliveries of failing events take:
	// of the requests at once, and of the function's time.
	retryShare = 10

	// slowShare is the share of the requests that slow events take: those whose batches were
	// answered before them. They may hang.
	slowShare = 2

	// A redelivery costs the time that it takes. It costs minRetryCost at least, about the
	// work of the source itself, and at most longRetry times what other requests take,
	// within minLongRetry and maxLongRetry: one that takes longer waits, and does not compute.
	minRetryCost = 2 * time.Millisecond
	longRetry    = 4
	minLongRetry = 100 * time.Millisecond
	maxLongRetry = 2 * time.Second

	// retryBurst is how much of the budget may be saved up: redeliveries are spread over
	// time, also after an outage.
	retryBurst = 20 * time.Millisecond
)

// budget bounds the redeliveries of failing events by the function's time: they may use a
// tenth of all that is used, or of fewRequests at once if that is more. Its unit is the
// time of a request.
type budget struct {
	saved       time.Duration // that redeliveries may use; below 0 after one that took longer than expected
	savedAt     time.Time
	cost        time.Duration // of a redelivery, about
	retrying    int           // redeliveries in requests
	sendingSlow int           // slow events in requests
}

// takeRetry returns the failing entry that is sent next; nil if there is none, or the
// budget is used. Then it returns the time until there is some, if that is before idle.
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
		t.signal() // it waits for a probe now
	}
	return nil, idle
}

// save adds to the budget what has become free since, and the share of a request's time.
func (t *Table) save(now time.Time, took time.Duration) {
	if !t.savedAt.IsZero() {
		t.saved += now.Sub(t.savedAt) * fewRequests / retryShare
	}
	t.savedAt = now
	t.saved = min(t.saved+took/(retryShare-1), retryBurst)
}

// spend charges a redelivery that is sent.
func (t *Table) spend(e *Entry) {
	t.retrying++
	t.cost = max(t.cost, t.leastCost())
	e.charged = t.cost
	t.saved -= e.charged
}

// leastCost is what a redelivery costs at least. With a rate it is so much that they take
// a tenth of that.
func (t *Table) leastCost() time.Duration {
	if t.cfg.Rate == 0 {
		return minRetryCost
	}
	return max(minRetryCost, fewRequests*time.Second/time.Duration(t.cfg.Rate))
}

// spent corrects the charge of a redelivery by what it took.
func (t *Table) spent(e *Entry, took time.Duration) {
	t.retrying--
	cost := max(t.leastCost(), min(took, max(minLongRetry, longRetry*t.takes), maxLongRetry))
	t.cost += (cost - t.cost) / 8
	t.saved = max(t.saved+e.charged-cost, -cost) // several at once pay once
}
