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

// job is a message from its receipt until it is settled or handed back.
type job struct {
	in       *inlet
	window   *window
	message  eventing.Message
	errand   *delivery.Delivery
	tries    *triesOf
	size     int
	received time.Time
	leaving  bool      // the window's
	told     time.Time // when the stream last heard that it is at work

	// The agenda's.
	due   time.Time
	index int  // in the heap; -1 if it is not there
	held  bool // waits since the cluster hedges or stands by
	early bool // is asked about before it is due
	asked int  // how often it was not done

	lane    *lane // nil if no order is kept
	blocked bool  // waits for another one of its lane
}

// agenda says what is to be done with the messages of a source, and when: which
// are to be delivered now, which wait, and about which the ledger is to be asked.
type agenda struct {
	now func() time.Time

	mu       sync.Mutex
	hedge    eventing.Hedge
	batch    int   // so many may be delivered together
	ready    queue // to be delivered
	together queue // to be delivered, several at a time
	waiting  jobs
	asking   []*job
	backlog  backlog
	closed   bool

	deliveries sync.Cond     // for who takes from ready
	requests   sync.Cond     // for who takes from together
	questions  sync.Cond     // for who takes from asking
	sooner     chan struct{} // holds a token when the first of waiting is another one
	hurried    time.Time

	order
}

func newAgenda(now func() time.Time, batch int) *agenda {
	a := &agenda{now: now, batch: batch, hedge: eventing.Hedge{Standby: true}, sooner: make(chan struct{}, 1)}
	a.deliveries.L, a.questions.L, a.requests.L = &a.mu, &a.mu, &a.mu
	return a
}

// admit takes in a message that was received: to be delivered at once, or to wait
// as the hedge says. One that is late is asked about in any case, one that much waits
// behind when it is its turn.
func (a *agenda) admit(j *job, late, behind bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.join(j)
	switch {
	case !a.hedge.Race():
		j.held = true
		a.wait(j, a.dueHeld(j))
	case late:
		a.ask(j)
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

// dueHeld is when a message that was received and not tried yet is asked about.
func (a *agenda) dueHeld(j *job) time.Time {
	if !a.hedge.Standby {
		return j.received.Add(a.hedge.Delay)
	}
	return j.received.Add(min(standbyAsk<<min(j.asked, 10), standbyAskCap))
}

// later has a message tried again after a while, unless it is done by then.
func (a *agenda) later(j *job, after time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.held = false
	a.wait(j, a.now().Add(after))
}

// notDone decides about messages that the ledger does not have: whether it is
// time to deliver them.
func (a *agenda) notDone(jobs []*job) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		early := j.early
		j.early = false
		j.asked++
		switch {
		case a.hedge.Standby:
			j.held = true
			j.received = a.now() // for the next question
			a.wait(j, a.dueHeld(j))
		case early && a.now().Before(a.dueHeld(j)):
			a.wait(j, a.dueHeld(j))
		default:
			a.deliver(j)
		}
	}
}

func (a *agenda) deliver(j *job) {
	j.held = false
	if !a.mayGo(j) {
		a.block(j)
		return
	}
	if j.lane != nil {
		j.lane.running = j
	}
	if a.batch > 1 && !j.errand.DeadLetter && !j.errand.Alone {
		a.together.push(j)
		a.requests.Signal()
		return
	}
	a.ready.push(j)
	a.deliveries.Signal()
}

// deliverAlone has messages delivered that were about to go together.
func (a *agenda) deliverAlone(jobs []*job) {
	if len(jobs) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range jobs {
		a.ready.push(j)
	}
	a.deliveries.Broadcast()
}

func (a *agenda) ask(j *job) {
	a.asking = append(a.asking, j)
	a.questions.Signal()
}

func (a *agenda) wait(j *job, due time.Time) {
	j.due = due
	heap.Push(&a.waiting, j)
	if j.index == 0 {
		a.reschedule()
	}
}

func (a *agenda) reschedule() {
	select {
	case a.sooner <- struct{}{}:
	default:
	}
}

// run moves what is due until ctx ends.
func (a *agenda) run(ctx context.Context) {
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
func (a *agenda) moveDue(wait time.Duration) time.Duration {
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
		if !first.errand.DeadLetter && (first.held || !a.hedge.Race()) {
			a.ask(first)
		} else {
			a.deliver(first)
		}
	}
	return wait
}

// hurry has the ledger asked about messages that wait for their time, each once:
// nothing more fits in, and many of them will be done.
func (a *agenda) hurry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now().Sub(a.hurried) < hurryInterval {
		return
	}
	a.hurried = a.now()
	kept := a.waiting[:0]
	for _, j := range a.waiting {
		if j.held && j.asked == 0 {
			j.early, j.index = true, -1
			a.ask(j)
			continue
		}
		kept = append(kept, j)
	}
	clear(a.waiting[len(kept):])
	a.waiting = kept
	a.waiting.fix()
}

// set changes the hedge, also for messages that wait already.
func (a *agenda) set(h eventing.Hedge) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hedge = h
	if h.Standby {
		ready := append(a.ready.clear(), a.together.clear()...)
		for _, j := range ready {
			if j.errand.DeadLetter {
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
			j.due = a.dueHeld(j)
		}
	}
	a.waiting.fix()
	a.reschedule()
}

// current is the hedge that counts.
func (a *agenda) current() eventing.Hedge {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hedge
}

// take waits for a message that is to be delivered; nil when there will be none.
func (a *agenda) take() *job {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.ready.len() == 0 && !a.closed {
		a.deliveries.Wait()
	}
	if a.closed {
		return nil
	}
	j := a.ready.pop()
	a.feed()
	return j
}

// takeTogether waits for a message that may be delivered with others, and gives it
// with those that wait, as many as go into one request; nil when there will be
// none.
func (a *agenda) takeTogether() []*job {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.together.len() == 0 && !a.closed {
		a.requests.Wait()
	}
	if a.closed {
		return nil
	}
	first := a.together.pop()
	jobs := append(make([]*job, 0, min(a.batch, 1+a.together.len())), first)
	for bytes := first.size; len(jobs) < cap(jobs); {
		if bytes += a.together.first().size - jobOverhead; bytes > batchBytes {
			break
		}
		jobs = append(jobs, a.together.pop())
	}
	a.feed()
	return jobs
}

// takeQuestions waits for messages that the ledger is to be asked about, and
// gives up to n of them; nil when there will be none.
func (a *agenda) takeQuestions(n int) []*job {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.asking) == 0 && !a.hungry() && !a.closed {
		a.questions.Wait()
	}
	if a.closed {
		return nil
	}
	if len(a.asking) == 0 {
		a.askSome()
	}
	n = min(n, len(a.asking))
	taken := append([]*job(nil), a.asking[:n]...)
	rest := copy(a.asking, a.asking[n:])
	clear(a.asking[rest:])
	a.asking = a.asking[:rest]
	return taken
}

// close ends all taking and gives what nobody has taken.
func (a *agenda) close() []*job {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.deliveries.Broadcast()
	a.questions.Broadcast()
	a.requests.Broadcast()
	left := append(a.ready.clear(), a.together.clear()...)
	left = append(left, a.waiting...)
	left = append(left, a.asking...)
	left = append(left, a.blockedJobs()...)
	left = append(left, a.backlog.jobs...)
	a.waiting, a.asking, a.backlog.jobs, a.lanes = nil, nil, nil, nil
	return left
}

// queue has jobs in order.
type queue struct {
	jobs []*job
	head int
}

func (q *queue) len() int    { return len(q.jobs) - q.head }
func (q *queue) first() *job { return q.jobs[q.head] }
func (q *queue) push(j *job) { q.jobs = append(q.jobs, j) }

func (q *queue) pop() *job {
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
func (q *queue) clear() []*job {
	all := append([]*job(nil), q.jobs[q.head:]...)
	*q = queue{}
	return all
}

// jobs is a heap by the time when they are due.
type jobs []*job

func (h jobs) Len() int           { return len(h) }
func (h jobs) Less(i, k int) bool { return h[i].due.Before(h[k].due) }
func (h jobs) Swap(i, k int) {
	h[i], h[k] = h[k], h[i]
	h[i].index, h[k].index = i, k
}

// Push adds a *job.
func (h *jobs) Push(x any) {
	j, _ := x.(*job)
	j.index = len(*h)
	*h = append(*h, j)
}

// Pop removes the last.
func (h *jobs) Pop() any {
	old := *h
	j := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	j.index = -1
	return j
}

func (h *jobs) fix() {
	for i, j := range *h {
		j.index = i
	}
	heap.Init(h)
}
