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
)

const (
	// Messages whose turn is later than laneSoon, as far as can be told, are handed
	// back when they leave no room for others: for half of that time, or of the time
	// for which nothing of the subject has gone through, within laneRest and
	// laneRestCap. That must stay below the time after which the stream
	// hands them out anyway: a source that begins has them handed out at once, so
	// that it knows what comes before what.
	laneSoon    = 2 * time.Second
	laneRest    = time.Second
	laneRestCap = 30 * time.Second

	// makeRoomInterval is how often it is looked for such.
	makeRoomInterval = 100 * time.Millisecond
)

// lane has the messages of one subject in one stream that were received and are not
// settled. Only the first of them, in the order of the stream, is delivered.
type lane struct {
	subject string
	there   map[uint64]*job // nil while it is handed back
	order   sequences       // all of there, and some that are settled
	running *job            // is being delivered

	settled time.Time     // the latest one, or when the lane began
	pace    time.Duration // about that long from one to the next, once that is here
}

// lanes are those of one window.
type lanes struct {
	// known says that there is no message that was handed out and did not arrive.
	known   bool
	subject map[string]*lane
	blocked int // jobs that wait for another one
}

// order is what the agenda knows about the order.
type order struct {
	lanes map[*window]*lanes // nil if none is kept

	// Subjects with a dead letter, and its event; nil until that is known.
	parked map[string]map[EventID]struct{}
	asked  []DeadEvent // about which it was not asked yet in this round

	madeRoom time.Time
}

// begin is called when a stream is opened: until it is known that nothing is on its
// way that comes before, no message with a subject is delivered.
func (a *agenda) begin(w *window) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lanes == nil {
		return
	}
	for other := range a.lanes {
		if other == w || !other.abandoned() {
			continue
		}
		for subject, l := range a.lanes[other].subject {
			if l.running != nil { // and may still commit
				a.lane(w, subject).running = l.running
			}
		}
		delete(a.lanes, other)
	}
	a.lanesOf(w).known = false
}

// lanesOf gives the lanes of a window.
func (a *agenda) lanesOf(w *window) *lanes {
	if a.lanes[w] == nil {
		a.lanes[w] = &lanes{subject: map[string]*lane{}}
	}
	return a.lanes[w]
}

// lane gives that of a subject.
func (a *agenda) lane(w *window, subject string) *lane {
	set := a.lanesOf(w)
	l := set.subject[subject]
	if l == nil {
		l = &lane{subject: subject, there: map[uint64]*job{}, settled: a.now()}
		set.subject[subject] = l
	}
	return l
}

// missing reports whether it is not known yet what a window's stream has handed out.
func (a *agenda) missing(w *window) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lanes != nil && a.lanes[w] != nil && !a.lanes[w].known
}

// complete says that all of it is there.
func (a *agenda) complete(w *window) {
	a.mu.Lock()
	defer a.mu.Unlock()
	set := a.lanes[w]
	if set == nil { // at the end
		return
	}
	set.known = true
	for _, l := range set.subject {
		a.advance(set, l)
	}
}

// join puts a message in its lane, if it has a subject.
func (a *agenda) join(j *job) {
	subject := j.errand.Event.Subject()
	if a.lanes[j.window] == nil || subject == "" {
		return
	}
	l := a.lane(j.window, subject)
	j.lane = l
	sequence := j.message.Sequence()
	if _, before := l.there[sequence]; !before {
		heap.Push(&l.order, sequence)
	}
	l.there[sequence] = j
}

// first is the first message that is not settled; ok is false if there is none.
func (l *lane) first() (sequence uint64, ok bool) {
	for len(l.order) > 0 {
		if _, ok := l.there[l.order[0]]; ok {
			return l.order[0], true
		}
		heap.Pop(&l.order)
	}
	return 0, false
}

// mayGo reports whether it is a message's turn.
func (a *agenda) mayGo(j *job) bool {
	l, set := j.lane, a.lanes[j.window]
	if l == nil || set == nil { // abandoned, and is dropped
		return true
	}
	if l.running == j { // it was its turn, and still is
		return true
	}
	first, _ := l.first()
	if !set.known || a.parked == nil || first != j.message.Sequence() || l.running != nil {
		return false
	}
	if events := a.parked[l.subject]; len(events) > 0 {
		// Itself, if this is not known to the stream.
		_, itself := events[EventID{Source: j.errand.Event.Source(), ID: j.errand.Event.ID()}]
		return itself
	}
	return true
}

// block has a message wait for its turn.
func (a *agenda) block(j *job) {
	if !j.blocked {
		j.blocked = true
		if set := a.lanes[j.window]; set != nil {
			set.blocked++
		}
	}
}

func (a *agenda) unblock(j *job) {
	if j.blocked {
		j.blocked = false
		if set := a.lanes[j.window]; set != nil {
			set.blocked--
		}
	}
}

// advance sees whether it is the turn of the first of a lane.
func (a *agenda) advance(set *lanes, l *lane) {
	first, ok := l.first()
	if !ok {
		if l.running == nil {
			delete(set.subject, l.subject)
		}
		return
	}
	j := l.there[first]
	if j == nil || !j.blocked || !a.mayGo(j) {
		return
	}
	a.unblock(j)
	switch {
	case a.closed:
	case a.hedge.Standby:
		j.held = true
		a.wait(j, a.dueHeld(j))
	case !a.hedge.Race():
		a.ask(j) // perhaps it is done, after all that time
	default:
		a.deliver(j)
	}
}

// left says that a message is not held any more: it is settled, or was handed back
// and will come again.
func (a *agenda) left(j *job, settled bool) {
	if j.lane == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l, set := j.lane, a.lanes[j.window]
	if l.running == j {
		l.running = nil
	}
	a.unblock(j)
	if set == nil {
		a.leftLate(j)
		return
	}
	sequence := j.message.Sequence()
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

// leftLate is left for a message of a window that was abandoned meanwhile.
func (a *agenda) leftLate(j *job) {
	for _, set := range a.lanes {
		if l := set.subject[j.lane.subject]; l != nil && l.running == j {
			l.running = nil
			a.advance(set, l)
		}
	}
}

// park holds back what comes after an event that is dead.
func (a *agenda) park(j *job) {
	if j.lane == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parkOne(DeadEvent{Subject: j.lane.subject, EventID: EventID{Source: j.errand.Event.Source(), ID: j.errand.Event.ID()}})
}

func (a *agenda) parkOne(e DeadEvent) {
	if a.parked == nil {
		a.parked = map[string]map[EventID]struct{}{}
	}
	if a.parked[e.Subject] == nil {
		a.parked[e.Subject] = map[EventID]struct{}{}
	}
	a.parked[e.Subject][e.EventID] = struct{}{}
}

// countParked counts the events that are parked.
func (a *agenda) countParked() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, events := range a.parked {
		n += len(events)
	}
	return n
}

// parkAll takes in what was parked before.
func (a *agenda) parkAll(list []DeadEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parked == nil {
		a.parked = map[string]map[EventID]struct{}{}
	}
	for _, e := range list {
		a.parkOne(e)
	}
	for _, set := range a.lanes {
		for _, l := range set.subject {
			a.advance(set, l)
		}
	}
}

// parkedEvents gives up to n of those that are parked, others each time.
func (a *agenda) parkedEvents(n int) []DeadEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.asked) == 0 {
		for subject, events := range a.parked {
			for e := range events {
				a.asked = append(a.asked, DeadEvent{Subject: subject, EventID: e})
			}
		}
	}
	n = min(n, len(a.asked))
	list := slices.Clone(a.asked[:n])
	a.asked = a.asked[n:]
	return list
}

// unpark lets what comes after these events go on.
func (a *agenda) unpark(list []DeadEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range list {
		delete(a.parked[e.Subject], e.EventID)
		if len(a.parked[e.Subject]) > 0 {
			continue
		}
		delete(a.parked, e.Subject)
		for _, set := range a.lanes {
			if l := set.subject[e.Subject]; l != nil {
				a.advance(set, l)
			}
		}
	}
}

// blockedJobs are those that wait for their turn, of all windows.
func (a *agenda) blockedJobs() (all []*job) {
	for _, set := range a.lanes {
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
func (a *agenda) surplus(w *window, busy int) (jobs []*job, rest []time.Duration) {
	_, held := w.has(0)
	a.mu.Lock()
	defer a.mu.Unlock()
	set, now := a.lanes[w], a.now()
	if set == nil || set.blocked == 0 || held-set.blocked >= busy || now.Sub(a.madeRoom) < makeRoomInterval {
		return nil, nil
	}
	a.madeRoom = now
	type late struct {
		job        *job
		turn, rest time.Duration
	}
	var all []late
	for _, l := range set.subject {
		var mine []*job
		for _, j := range l.there {
			if j != nil && j.blocked {
				mine = append(mine, j)
			}
		}
		slices.SortFunc(mine, func(x, y *job) int { return cmp.Compare(x.message.Sequence(), y.message.Sequence()) })
		pace, rest := l.pace, time.Duration(0)
		if stuck := now.Sub(l.settled); !set.known {
			pace, rest = laneSoon, laneRest
		} else if stuck >= laneSoon {
			pace, rest = stuck, stuck/2 // it may go on at any moment
		}
		for i, j := range mine {
			turn := pace * time.Duration(min(i, 10_000)+1)
			if turn < laneSoon {
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
		x.job.lane.there[x.job.message.Sequence()] = nil
		jobs, rest = append(jobs, x.job), append(rest, min(max(x.rest, laneRest), laneRestCap))
	}
	return jobs, rest
}

// makeRoom hands back messages that wait for their turn.
func (s *Source) makeRoom(ctx context.Context, w *window) {
	jobs, rest := s.agenda.surplus(w, s.cfg.atOnce()/2)
	for i, j := range jobs {
		j.in.handBack(j)
		s.release(ctx, j, rest[i])
	}
}

// missing reports how many messages the stream has handed out that are not here;
// 0 if that is known to be none. Nothing must be on its way from the stream.
func (in *inlet) missing(ctx context.Context, reader eventing.Reader, w *window) (int, error) {
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
			in.source.agenda.complete(w)
			return 0, nil
		}
		if look == looks-1 || known == 0 {
			in.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "messages that were handed out before are waited for, so that the order is kept",
				slog.String("stream", in.stream.Name()), slog.Uint64("messages", position.Unacknowledged-uint64(known)))
			return int(position.Unacknowledged - uint64(known)), nil
		}
	}
	return 0, nil
}

// known counts the messages of a window that are not acknowledged.
func (in *inlet) known(w *window) int {
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
