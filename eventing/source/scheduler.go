package source

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

const (
	// hurryInterval is how often the ledger is asked about messages before their
	// time while no more fit in.
	hurryInterval = 20 * time.Millisecond

	// standbyAsk is how long a cluster that stands by waits until it asks the
	// ledger for the first time; standbyAskCap bounds the time between two
	// questions about the same message.
	standbyAsk    = time.Second
	standbyAskCap = 30 * time.Second
)

// message is a message from its receipt until it is settled or handed back.
type message struct {
	consumer    *consumer
	table       *inFlight
	msg         eventing.Message
	delivery    *delivery.Delivery
	attempts    *attemptsOf
	size        int
	received    time.Time
	leaving     bool      // the window's
	heartbeatAt time.Time // when the stream last heard that it is at work

	// The scheduler's.
	due           time.Time
	index         int  // in the heap; -1 if it is not there
	held          bool // waits since the cluster hedges or stands by
	lookedUpEarly bool // is asked about before it is due
	lookups       int  // how often it was not done

	queue   *keyQueue // nil if no order is kept
	blocked bool      // waits for another one of its lane
}

// scheduler says what is to be done with the messages of a source, and when: which
// are to be delivered now, which wait, and about which the ledger is to be asked.
type scheduler struct {
	now func() time.Time

	mu      sync.Mutex
	hedge   eventing.Hedge
	batch   int        // so many may be delivered together
	ready   readyQueue // to be delivered
	batched readyQueue // to be delivered, several at a time
	waiting messages
	lookups []*message
	backlog backlog
	closed  bool

	deliveryReady sync.Cond     // for takeDelivery
	batchReady    sync.Cond     // for takeBatch
	lookupReady   sync.Cond     // for takeLookups
	sooner        chan struct{} // holds a token when the first of waiting is another one
	hurried       time.Time

	ordering
}

func newScheduler(now func() time.Time, batch int) *scheduler {
	a := &scheduler{now: now, batch: batch, hedge: eventing.Hedge{Standby: true}, sooner: make(chan struct{}, 1)}
	a.deliveryReady.L, a.lookupReady.L, a.batchReady.L = &a.mu, &a.mu, &a.mu
	return a
}

// admit takes in a message that was received: to be delivered at once, or to wait
// as the hedge says. One that is late is asked about in any case, one that much waits
// behind when it is its turn.
func (a *scheduler) admit(j *message, late, behind bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.join(j)
	switch {
	case !a.hedge.Race():
		j.held = true
		a.wait(j, a.dueHedged(j))
	case late:
		a.lookUp(j)
	case behind:
		a.backlog.jobs = append(a.backlog.jobs, j)
		a.feed()
		if len(a.backlog.jobs) == 1 {
			a.reschedule()
		}
	default:
		a.deliver(j)
	}
}

// dueHedged is when a message that was received and not tried yet is asked about.
func (a *scheduler) dueHedged(j *message) time.Time {
	if !a.hedge.Standby {
		return j.received.Add(a.hedge.Delay)
	}
	return j.received.Add(min(standbyAsk<<min(j.lookups, 10), standbyAskCap))
}

// retryLater has a message tried again after a while, unless it is done by then.
func (a *scheduler) retryLater(j *message, after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.held = false
	a.wait(j, a.now().Add(after))
}

// notCommitted decides about messages that the ledger does not have: whether it is
// time to deliver them.
func (a *scheduler) notCommitted(jobs []*message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		early := j.lookedUpEarly
		j.lookedUpEarly = false
		j.lookups++
		switch {
		case a.hedge.Standby:
			j.held = true
			j.received = a.now() // for the next question
			a.wait(j, a.dueHedged(j))
		case early && a.now().Before(a.dueHedged(j)):
			a.wait(j, a.dueHedged(j))
		default:
			a.deliver(j)
		}
	}
}

func (a *scheduler) deliver(j *message) {
	j.held = false
	if !a.mayDeliver(j) {
		a.block(j)
		return
	}
	if j.queue != nil {
		j.queue.running = j
	}
	if a.batch > 1 && !j.delivery.DeadLetter && !j.delivery.Alone {
		a.batched.push(j)
		a.batchReady.Signal()
		return
	}
	a.ready.push(j)
	a.deliveryReady.Signal()
}

// deliverAlone has messages delivered that were about to go together.
func (a *scheduler) deliverAlone(jobs []*message) {
	if len(jobs) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		a.ready.push(j)
	}
	a.deliveryReady.Broadcast()
}

func (a *scheduler) lookUp(j *message) {
	a.lookups = append(a.lookups, j)
	a.lookupReady.Signal()
}

func (a *scheduler) wait(j *message, due time.Time) {
	j.due = due
	heap.Push(&a.waiting, j)
	if j.index == 0 {
		a.reschedule()
	}
}

func (a *scheduler) reschedule() {
	select {
	case a.sooner <- struct{}{}:
	default:
	}
}

// run moves what is due until ctx ends.
func (a *scheduler) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(a.moveDue(time.Hour))
		select {
		case <-timer.C:
		case <-a.sooner:
		case <-ctx.Done():
			return
		}
	}
}

// moveDue moves what is due and says how long it is until the next, wait if there is
// none.
func (a *scheduler) moveDue(wait time.Duration) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.feed(); len(a.backlog.jobs) > 0 {
		wait = feedInterval
	}
	for len(a.waiting) > 0 {
		first := a.waiting[0]
		if left := first.due.Sub(a.now()); left > 0 {
			return min(left, wait)
		}
		heap.Pop(&a.waiting)
		if !first.delivery.DeadLetter && (first.held || !a.hedge.Race()) {
			a.lookUp(first)
		} else {
			a.deliver(first)
		}
	}
	return wait
}

// hurry has the ledger asked about messages that wait for their time, each once:
// nothing more fits in, and many of them will be done.
func (a *scheduler) hurry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now().Sub(a.hurried) < hurryInterval {
		return
	}
	a.hurried = a.now()
	kept := a.waiting[:0]
	for _, j := range a.waiting {
		if j.held && j.lookups == 0 {
			j.lookedUpEarly, j.index = true, -1
			a.lookUp(j)
			continue
		}
		kept = append(kept, j)
	}
	clear(a.waiting[len(kept):])
	a.waiting = kept
	a.waiting.fix()
}

// setHedge changes the hedge, also for messages that wait already.
func (a *scheduler) setHedge(h eventing.Hedge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hedge = h
	if h.Standby {
		ready := append(a.ready.clear(), a.batched.clear()...)
		for _, j := range ready {
			if j.delivery.DeadLetter {
				a.ready.push(j)
				continue
			}
			j.held = true
			heap.Push(&a.waiting, j)
		}
		for _, j := range a.blockedJobs() {
			a.unblock(j)
			j.held = true
			heap.Push(&a.waiting, j)
		}
	}
	if !h.Race() {
		for _, j := range a.backlog.jobs {
			j.held = true
			heap.Push(&a.waiting, j)
		}
		a.backlog.jobs = nil
	}
	for _, j := range a.waiting {
		if j.held {
			j.due = a.dueHedged(j)
		}
	}
	a.waiting.fix()
	a.reschedule()
}

// currentHedge is the hedge that counts.
func (a *scheduler) currentHedge() eventing.Hedge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hedge
}

// takeDelivery waits for a message that is to be delivered; nil when there will be none.
func (a *scheduler) takeDelivery() *message {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.ready.len() == 0 && !a.closed {
		a.deliveryReady.Wait()
	}
	if a.closed {
		return nil
	}
	j := a.ready.pop()
	a.feed()
	return j
}

// takeBatch waits for a message that may be delivered with others, and gives it
// with those that wait, as many as go into one request; nil when there will be
// none.
func (a *scheduler) takeBatch() []*message {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.batched.len() == 0 && !a.closed {
		a.batchReady.Wait()
	}
	if a.closed {
		return nil
	}
	first := a.batched.pop()
	jobs := append(make([]*message, 0, min(a.batch, 1+a.batched.len())), first)
	for bytes := first.size; len(jobs) < cap(jobs); {
		if bytes += a.batched.first().size - messageOverhead; bytes > batchBytes {
			break
		}
		jobs = append(jobs, a.batched.pop())
	}
	a.feed()
	return jobs
}

// takeLookups waits for messages that the ledger is to be asked about, and
// gives up to n of them; nil when there will be none.
func (a *scheduler) takeLookups(n int) []*message {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.lookups) == 0 && !a.hungry() && !a.closed {
		a.lookupReady.Wait()
	}
	if a.closed {
		return nil
	}
	if len(a.lookups) == 0 {
		a.lookUpBacklog()
	}
	n = min(n, len(a.lookups))
	taken := append([]*message(nil), a.lookups[:n]...)
	rest := copy(a.lookups, a.lookups[n:])
	clear(a.lookups[rest:])
	a.lookups = a.lookups[:rest]
	return taken
}

// close ends all taking and gives what nobody has taken.
func (a *scheduler) close() []*message {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.deliveryReady.Broadcast()
	a.lookupReady.Broadcast()
	a.batchReady.Broadcast()
	left := append(a.ready.clear(), a.batched.clear()...)
	left = append(left, a.waiting...)
	left = append(left, a.lookups...)
	left = append(left, a.blockedJobs()...)
	left = append(left, a.backlog.jobs...)
	a.waiting, a.lookups, a.backlog.jobs, a.keys = nil, nil, nil, nil
	return left
}

// readyQueue has jobs in order.
type readyQueue struct {
	jobs []*message
	head int
}

func (q *readyQueue) len() int        { return len(q.jobs) - q.head }
func (q *readyQueue) first() *message { return q.jobs[q.head] }
func (q *readyQueue) push(j *message) { q.jobs = append(q.jobs, j) }

func (q *readyQueue) pop() *message {
	j := q.jobs[q.head]
	q.jobs[q.head] = nil
	q.head++
	switch {
	case q.head == len(q.jobs):
		q.jobs, q.head = q.jobs[:0], 0
	case q.head > 1024 && q.head > len(q.jobs)/2:
		left := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[left:])
		q.jobs, q.head = q.jobs[:left], 0
	}
	return j
}

// clear gives all of them, and has none.
func (q *readyQueue) clear() []*message {
	all := append([]*message(nil), q.jobs[q.head:]...)
	*q = readyQueue{}
	return all
}

// messages is a heap by the time when they are due.
type messages []*message

func (h messages) Len() int           { return len(h) }
func (h messages) Less(i, k int) bool { return h[i].due.Before(h[k].due) }
func (h messages) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].index, h[k].index = i, k
}

// Push adds a *job.
func (h *messages) Push(x any) {
	j, _ := x.(*message)
	j.index = len(*h)
	*h = append(*h, j)
}

// Pop removes the last.
func (h *messages) Pop() any {
	old := *h
	j := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	j.index = -1
	return j
}

func (h *messages) fix() {
	for i, j := range *h {
		j.index = i
	}
	heap.Init(h)
}
