package source

import (
	"cmp"
	"container/heap"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	// Messages whose turn is later than soon, as far as can be told, are handed
	// back when they leave no room for others: for half of that time, or of the time
	// for which nothing of the subject has gone through, within handBackMin and
	// handBackMax. That must stay below the time after which the stream
	// hands them out anyway: a source that begins has them handed out at once, so
	// that it knows what comes before what.
	soon        = 2 * time.Second
	handBackMin = time.Second
	handBackMax = 30 * time.Second

	// makeRoomInterval is how often it is looked for such.
	makeRoomInterval = 100 * time.Millisecond
)

// keyQueue has the messages of one subject in one stream that were received and are not
// settled. Only the first of them, in the order of the stream, is delivered.
type keyQueue struct {
	subject string
	there   map[uint64]*message // nil while it is handed back
	order   sequences           // all of there, and some that are settled
	running *message            // is being delivered

	settled time.Time     // the latest one, or when the lane began
	pace    time.Duration // about that long from one to the next, once that is here
}

// orderingKeys are those of one window.
type orderingKeys struct {
	// known says that there is no message that was handed out and did not arrive.
	known   bool
	subject map[string]*keyQueue
	blocked int // jobs that wait for another one
}

// ordering is what the scheduler knows about the order.
type ordering struct {
	keys map[*inFlight]*orderingKeys // nil if none is kept

	// Subjects with a dead letter, and its event; nil until that is known.
	blockedSubjects map[string]map[EventID]struct{}
	asked           []ledger.BlockedEvent // about which it was not asked yet in this round

	madeRoom time.Time
}

// openWindow is called when a stream is opened: until it is known that nothing is on its
// way that comes before, no message with a subject is delivered.
func (a *scheduler) openWindow(w *inFlight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keys == nil {
		return
	}
	for other := range a.keys {
		if other == w || !other.abandoned() {
			continue
		}
		for subject, l := range a.keys[other].subject {
			if l.running != nil { // and may still commit
				a.queueOf(w, subject).running = l.running
			}
		}
		delete(a.keys, other)
	}
	a.keysOf(w).known = false
}

// keysOf returns the ordering keys of a table.
func (a *scheduler) keysOf(w *inFlight) *orderingKeys {
	if a.keys[w] == nil {
		a.keys[w] = &orderingKeys{subject: map[string]*keyQueue{}}
	}
	return a.keys[w]
}

// queueOf returns the queue of a subject.
func (a *scheduler) queueOf(w *inFlight, subject string) *keyQueue {
	set := a.keysOf(w)
	l := set.subject[subject]
	if l == nil {
		l = &keyQueue{subject: subject, there: map[uint64]*message{}, settled: a.now()}
		set.subject[subject] = l
	}
	return l
}

// missing reports whether it is not known yet what a window's stream has handed out.
func (a *scheduler) missing(w *inFlight) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys != nil && a.keys[w] != nil && !a.keys[w].known
}

// complete says that all of it is there.
func (a *scheduler) complete(w *inFlight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.keys[w]
	if set == nil { // at the end
		return
	}
	set.known = true
	for _, l := range set.subject {
		a.advance(set, l)
	}
}

// join puts a message in its lane, if it has a subject.
func (a *scheduler) join(j *message) {
	subject := j.delivery.Event.Subject()
	if a.keys[j.table] == nil || subject == "" {
		return
	}
	l := a.queueOf(j.table, subject)
	j.queue = l
	sequence := j.msg.Sequence()
	if _, before := l.there[sequence]; !before {
		heap.Push(&l.order, sequence)
	}
	l.there[sequence] = j
}

// first is the first message that is not settled; ok is false if there is none.
func (l *keyQueue) first() (sequence uint64, ok bool) {
	for len(l.order) > 0 {
		if _, ok := l.there[l.order[0]]; ok {
			return l.order[0], true
		}
		heap.Pop(&l.order)
	}
	return 0, false
}

// mayDeliver reports whether it is a message's turn.
func (a *scheduler) mayDeliver(j *message) bool {
	l, set := j.queue, a.keys[j.table]
	if l == nil || set == nil { // abandoned, and is dropped
		return true
	}
	if l.running == j { // it was its turn, and still is
		return true
	}
	first, _ := l.first()
	if !set.known || a.blockedSubjects == nil || first != j.msg.Sequence() || l.running != nil {
		return false
	}
	if events := a.blockedSubjects[l.subject]; len(events) > 0 {
		// Itself, if this is not known to the stream.
		_, itself := events[EventID{Source: j.delivery.Event.Source(), ID: j.delivery.Event.ID()}]
		return itself
	}
	return true
}

// block has a message wait for its turn.
func (a *scheduler) block(j *message) {
	if !j.blocked {
		j.blocked = true
		if set := a.keys[j.table]; set != nil {
			set.blocked++
		}
	}
}

func (a *scheduler) unblock(j *message) {
	if j.blocked {
		j.blocked = false
		if set := a.keys[j.table]; set != nil {
			set.blocked--
		}
	}
}

// advance sees whether it is the turn of the first of a lane.
func (a *scheduler) advance(set *orderingKeys, l *keyQueue) {
	first, ok := l.first()
	if !ok {
		if l.running == nil {
			delete(set.subject, l.subject)
		}
		return
	}
	j := l.there[first]
	if j == nil || !j.blocked || !a.mayDeliver(j) {
		return
	}
	a.unblock(j)
	switch {
	case a.closed:
	case a.hedge.Standby:
		j.held = true
		a.wait(j, a.dueHedged(j))
	case !a.hedge.Race():
		a.lookUp(j) // perhaps it is done, after all that time
	default:
		a.deliver(j)
	}
}

// finish says that a message is not held any more: it is settled, or was handed back
// and will come again.
func (a *scheduler) finish(j *message, settled bool) {
	if j.queue == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l, set := j.queue, a.keys[j.table]
	if l.running == j {
		l.running = nil
	}
	a.unblock(j)
	if set == nil {
		a.finishLate(j)
		return
	}
	sequence := j.msg.Sequence()
	if l.there[sequence] == j {
		l.there[sequence] = nil
	}
	if settled {
		delete(l.there, sequence)
		now := a.now()
		l.pace = (3*l.pace + now.Sub(later(l.settled, j.received))) / 4
		l.settled = now
	}
	a.advance(set, l)
}

// finishLate is left for a message of a window that was abandoned meanwhile.
func (a *scheduler) finishLate(j *message) {
	for _, set := range a.keys {
		if l := set.subject[j.queue.subject]; l != nil && l.running == j {
			l.running = nil
			a.advance(set, l)
		}
	}
}

// blockSubject holds back what comes after an event that is dead.
func (a *scheduler) blockSubject(j *message) {
	if j.queue == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blockOneSubject(ledger.BlockedEvent{Subject: j.queue.subject, Source: j.delivery.Event.Source(), ID: j.delivery.Event.ID()})
}

func (a *scheduler) blockOneSubject(e ledger.BlockedEvent) {
	if a.blockedSubjects == nil {
		a.blockedSubjects = map[string]map[EventID]struct{}{}
	}
	if a.blockedSubjects[e.Subject] == nil {
		a.blockedSubjects[e.Subject] = map[EventID]struct{}{}
	}
	a.blockedSubjects[e.Subject][EventID{Source: e.Source, ID: e.ID}] = struct{}{}
}

// countBlocking counts the events that are parked.
func (a *scheduler) countBlocking() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, events := range a.blockedSubjects {
		n += len(events)
	}
	return n
}

// blockSubjects takes in what was parked before.
func (a *scheduler) blockSubjects(list []ledger.BlockedEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.blockedSubjects == nil {
		a.blockedSubjects = map[string]map[EventID]struct{}{}
	}
	for _, e := range list {
		a.blockOneSubject(e)
	}
	for _, set := range a.keys {
		for _, l := range set.subject {
			a.advance(set, l)
		}
	}
}

// blockingEvents gives up to n of those that are parked, others each time.
func (a *scheduler) blockingEvents(n int) []ledger.BlockedEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		for subject, events := range a.blockedSubjects {
			for e := range events {
				a.asked = append(a.asked, ledger.BlockedEvent{Subject: subject, Source: e.Source, ID: e.ID})
			}
		}
	}
	n = min(n, len(a.asked))
	list := slices.Clone(a.asked[:n])
	a.asked = a.asked[n:]
	return list
}

// unblockSubjects lets what comes after these events go on.
func (a *scheduler) unblockSubjects(list []ledger.BlockedEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range list {
		delete(a.blockedSubjects[e.Subject], EventID{Source: e.Source, ID: e.ID})
		if len(a.blockedSubjects[e.Subject]) > 0 {
			continue
		}
		delete(a.blockedSubjects, e.Subject)
		for _, set := range a.keys {
			if l := set.subject[e.Subject]; l != nil {
				a.advance(set, l)
			}
		}
	}
}

// blockedJobs are those that wait for their turn, of all windows.
func (a *scheduler) blockedJobs() (all []*message) {
	for _, set := range a.keys {
		for _, l := range set.subject {
			for _, j := range l.there {
				if j != nil && j.blocked {
					all = append(all, j)
				}
			}
		}
	}
	return all
}

// surplus gives messages that are to be handed back, since they take the room of
// others and their turn is far: at most half of those that wait for it, those first
// whose turn is last, with the time for which they are to rest. None if busy
// messages are at work all the same.
func (a *scheduler) surplus(w *inFlight, busy int) (jobs []*message, rest []time.Duration) {
	_, held := w.has(0)
	a.mu.Lock()
	defer a.mu.Unlock()
	set, now := a.keys[w], a.now()
	if set == nil || set.blocked == 0 || held-set.blocked >= busy || now.Sub(a.madeRoom) < makeRoomInterval {
		return nil, nil
	}
	a.madeRoom = now
	type late struct {
		job        *message
		turn, rest time.Duration
	}
	var all []late
	for _, l := range set.subject {
		var mine []*message
		for _, j := range l.there {
			if j != nil && j.blocked {
				mine = append(mine, j)
			}
		}
		slices.SortFunc(mine, func(x, y *message) int { return cmp.Compare(x.msg.Sequence(), y.msg.Sequence()) })
		pace, rest := l.pace, time.Duration(0)
		if stuck := now.Sub(l.settled); !set.known {
			pace, rest = soon, handBackMin
		} else if stuck >= soon {
			pace, rest = stuck, stuck/2 // it may go on at any moment
		}
		for i, j := range mine {
			turn := pace * time.Duration(min(i, 10_000)+1)
			if turn < soon {
				continue
			}
			if rest == 0 {
				all = append(all, late{job: j, turn: turn, rest: turn / 2})
			} else {
				all = append(all, late{job: j, turn: turn, rest: rest})
			}
		}
	}
	slices.SortFunc(all, func(x, y late) int { return cmp.Compare(y.turn, x.turn) })
	for _, x := range all[:min(len(all), (set.blocked+1)/2)] {
		a.unblock(x.job)
		x.job.queue.there[x.job.msg.Sequence()] = nil
		jobs, rest = append(jobs, x.job), append(rest, min(max(x.rest, handBackMin), handBackMax))
	}
	return jobs, rest
}

// makeRoom hands back messages that wait for their turn.
func (s *Source) makeRoom(ctx context.Context, w *inFlight) {
	jobs, rest := s.scheduler.surplus(w, s.cfg.atOnce()/2)
	for i, j := range jobs {
		j.consumer.handBack(j)
		s.nak(ctx, j, rest[i])
	}
}

// missingMessages reports how many messages the stream has handed out that are not here;
// 0 if that is known to be none. Nothing must be on its way from the stream.
func (in *consumer) missingMessages(ctx context.Context, reader eventing.Reader, w *inFlight) (int, error) {
	const looks, pause = 3, 50 * time.Millisecond // acknowledgements may be on their way
	for look := range looks {
		if look > 0 {
			if wait := (backoff.Backoff{Base: pause, Limit: pause}); !backoff.Sleep(ctx, &wait) {
				return 0, ctx.Err()
			}
		}
		asking, cancel := context.WithTimeout(ctx, saveTimeout)
		position, err := reader.Position(asking)
		cancel()
		if err != nil {
			return 0, err
		}
		known := in.known(w)
		if position.Unacknowledged <= uint64(known) {
			in.source.scheduler.complete(w)
			return 0, nil
		}
		if look == looks-1 || known == 0 {
			in.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "waiting for messages that were delivered before, to keep the order",
				slog.String("stream", in.stream.Name()), slog.Uint64("messages", position.Unacknowledged-uint64(known)))
			return int(position.Unacknowledged - uint64(known)), nil
		}
	}
	return 0, nil
}

// known counts the messages of a window that are not acknowledged.
func (in *consumer) known(w *inFlight) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	known := len(w.held) - w.leaving
	for sequence := range in.returned {
		if w.held[sequence] == nil { // else it is about to be handed back
			known++
		}
	}
	return known
}

// sequences is a heap of them.
type sequences []uint64

func (s sequences) Len() int           { return len(s) }
func (s sequences) Less(i, k int) bool { return s[i] < s[k] }
func (s sequences) Swap(i, k int)      { s[i], s[k] = s[k], s[i] }

// Push adds a uint64.
func (s *sequences) Push(x any) {
	sequence, _ := x.(uint64)
	*s = append(*s, sequence)
}

// Pop removes the last.
func (s *sequences) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
