package inflight

import (
	"container/heap"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
)

// shareRun simulates clusters that share the events of one stream, with its own clock:
// their tables are real, and their functions compute one event at a time.
type shareRun struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Time
	todo     timeline
	clusters []*shareCluster
	ordered  bool

	arrived   []time.Time // by sequence - 1
	committed map[uint64]time.Time
	down      time.Time // the database is unavailable until then

	last map[string]uint64 // the latest committed sequence, by subject

	computed, lost, helped int // events, since the last reset
}

// shareCluster is one cluster of a shareRun.
type shareCluster struct {
	run       *shareRun
	name      int
	table     *Table
	partition *Partition
	read      int           // messages
	reading   bool          // a read is planned
	compute   time.Duration // of one event
	work      []work        // of the function, which processes the first of it
	frozen    time.Time     // the cluster stalls until then
	dead      bool
	skew      time.Duration // of its clock
	saved     time.Time
	fit       bool
	p99       time.Duration
	members   []int
	wake      int // of the latest planned call of pump
}

// work is a request that a function computes.
type work struct {
	entries []*Entry
	begun   time.Time
}

type planned struct {
	at     time.Time
	number int
	do     func()
}

type timeline struct {
	list   []planned
	number int
}

func (l *timeline) Len() int { return len(l.list) }
func (l *timeline) Less(i, k int) bool {
	if !l.list[i].at.Equal(l.list[k].at) {
		return l.list[i].at.Before(l.list[k].at)
	}
	return l.list[i].number < l.list[k].number
}
func (l *timeline) Swap(i, k int) { l.list[i], l.list[k] = l.list[k], l.list[i] }
func (l *timeline) Push(x any)    { p, _ := x.(planned); l.list = append(l.list, p) }
func (l *timeline) Pop() any {
	last := l.list[len(l.list)-1]
	l.list = l.list[:len(l.list)-1]
	return last
}

func newShareRun(t *testing.T, seed uint64, ordered bool, clusters int) *shareRun {
	t.Helper()
	isModel(t)

	r := &shareRun{t: t, random: rand.New(rand.NewPCG(seed, 16)), now: modelStart, ordered: ordered, committed: map[uint64]time.Time{}, last: map[string]uint64{}}
	for name := range clusters {
		c := &shareCluster{run: r, name: name, compute: time.Millisecond}
		c.table = New(Config{
			Now:      func() time.Time { return r.now.Add(c.skew) },
			InFlight: 1024, MaxBytes: 64 << 20, CatchUpLag: time.Second, Ordered: ordered,
			MaxBatch: func() (int, int) { return 64, 1 << 20 },
		})
		c.partition = c.table.AddPartition()
		c.partition.Complete()
		if ordered {
			c.table.Block()
		}
		c.table.SetHedge(eventing.Hedge{Share: true})
		c.table.SetShareDelay(100 * time.Millisecond)
		r.clusters = append(r.clusters, c)
		r.plan(time.Duration(name)*300*time.Millisecond, c.save)
	}
	return r
}

// plan calls do after a time.
func (r *shareRun) plan(after time.Duration, do func()) {
	r.todo.number++
	heap.Push(&r.todo, planned{r.now.Add(after), r.todo.number, do})
}

// during plans a call for a cluster, which is delayed while the cluster is frozen.
func (c *shareCluster) during(after time.Duration, do func()) {
	r := c.run
	r.plan(after, func() {
		switch {
		case c.dead:
		case r.now.Before(c.frozen):
			c.during(c.frozen.Sub(r.now), do)
		default:
			do()
		}
	})
}

// feed stores messages in the stream at a rate, for a time.
func (r *shareRun) feed(rate int, d time.Duration) {
	interval := time.Second / time.Duration(rate)
	for at := time.Duration(0); at < d; at += interval {
		r.plan(at+time.Duration(r.random.Int64N(int64(interval))), func() {
			r.arrived = append(r.arrived, r.now)
			for _, c := range r.clusters {
				c.pull(time.Millisecond)
			}
		})
	}
}

// pass advances the clock.
func (r *shareRun) pass(d time.Duration) {
	until := r.now.Add(d)
	for len(r.todo.list) > 0 && !r.todo.list[0].at.After(until) {
		next, _ := heap.Pop(&r.todo).(planned)
		r.now = next.at
		next.do()
	}
	r.now = until
}

// pull reads messages after a time.
func (c *shareCluster) pull(after time.Duration) {
	if !c.reading {
		c.reading = true
		c.during(after, c.receive)
	}
}

// receive reads the available messages.
func (c *shareCluster) receive() {
	r := c.run
	c.reading = false
	n, _ := c.partition.roomNow()
	for ; c.read < len(r.arrived) && n > 0; n-- {
		c.read++
		sequence := uint64(c.read)
		m := &modelMessage{sequence: sequence, arrived: r.arrived[c.read-1], pending: uint64(len(r.arrived) - c.read), size: 500, kind: "p"}
		if r.ordered {
			m.subject = fmt.Sprint(sequence * 7919 % 23)
		}
		m.id = EventID{"/s", fmt.Sprint(sequence)}
		d := &delivery.Delivery{Event: event.New()}
		d.Event.SetType(m.kind)
		c.partition.Receive(m, d, m.id, m.subject)
	}
	c.pump()
}

// pump does what the table requests.
func (c *shareCluster) pump() {
	r := c.run
	for {
		entries, wait := c.table.NextRequest(modelIdle)
		if entries != nil {
			c.send(entries)
			continue
		}
		if c.table.lookups.len() > 0 && (!c.table.failing || c.table.asking == 0) {
			c.lookUp(c.table.NextLookup(4096))
			continue
		}
		c.wake++
		planned := c.wake
		c.during(wait, func() {
			if c.wake == planned {
				c.pump()
			}
		})
		if c.read < len(r.arrived) {
			c.pull(roomInterval)
		}
		return
	}
}

// lookUp answers a lookup after a round trip.
func (c *shareCluster) lookUp(entries []*Entry) {
	r := c.run
	const roundTrip, timeout = time.Millisecond, 400 * time.Millisecond
	if r.now.Before(r.down) && r.down.Sub(r.now) > timeout {
		c.during(timeout, func() {
			c.table.LookedUp(entries, nil)
			c.pump()
		})
		return
	}
	r.plan(max(roundTrip, r.down.Sub(r.now)), func() {
		committed := make([]bool, len(entries))
		for i, e := range entries {
			_, committed[i] = r.committed[e.Sequence()]
		}
		c.during(0, func() {
			c.table.LookedUp(entries, committed)
			c.pump()
		})
	})
}

// send computes a request and commits it.
func (c *shareCluster) send(entries []*Entry) {
	r := c.run
	begun := r.now
	for _, e := range entries {
		r.computed++
		if e.helps {
			r.helped++
		}
	}
	c.work = append(c.work, work{entries, begun})
	if len(c.work) == 1 {
		c.computeNext()
	}
}

// computeNext computes the next request.
func (c *shareCluster) computeNext() {
	r := c.run
	next := c.work[0]
	entries, begun := next.entries, next.begun
	c.during(time.Duration(len(entries))*c.compute, func() {
		if c.work = c.work[1:]; len(c.work) > 0 {
			c.computeNext()
		}
		c.during(max(time.Millisecond, r.down.Sub(r.now)), func() {
			request := Request{Entries: entries, Next: make([]Next, len(entries)), After: make([]time.Duration, len(entries)), Took: r.now.Sub(begun), Answered: true, Committed: true, Together: entries[0].GoesTogether()}
			for _, e := range entries {
				r.commit(c, e)
			}
			c.table.Complete(request)
			c.pump()
		})
	})
}

// commit decides in the ledger which cluster wins.
func (r *shareRun) commit(c *shareCluster, e *Entry) {
	r.t.Helper()
	if _, lost := r.committed[e.Sequence()]; lost {
		r.lost++
		return
	}
	r.committed[e.Sequence()] = r.now
	if e.Subject == "" {
		return
	}
	if last := r.last[e.Subject]; e.Sequence() < last {
		r.t.Fatalf("cluster %d commits %d of subject %s after %d", c.name, e.Sequence(), e.Subject, last)
	}
	r.last[e.Subject] = e.Sequence()
}

// save saves a checkpoint and reads the view, once a second.
func (c *shareCluster) save() {
	r := c.run
	c.during(time.Second, c.save)
	if r.now.Before(r.down) || c.dead {
		return
	}
	c.saved, c.fit, c.p99 = r.now, !c.table.Behind(), c.table.CommitP99()
	c.look()
}

// look reads the view.
func (c *shareCluster) look() {
	r := c.run
	var fit, all []int
	delay := 100 * time.Millisecond
	for _, o := range r.clusters {
		if o.saved.IsZero() || r.now.Sub(o.saved) > 3*time.Second {
			continue
		}
		all = append(all, o.name)
		if o.fit {
			fit = append(fit, o.name)
		}
		delay = max(delay, 2*o.p99)
	}
	if len(fit) == 0 {
		fit = all
	}
	c.table.SetShareDelay(delay)
	if !slices.Equal(fit, c.members) {
		c.setMembers(fit)
	}
	c.pump()
}

// setMembers divides the events between members.
func (c *shareCluster) setMembers(members []int) {
	c.members = members
	c.table.SetPreference(func(e *Entry) bool {
		n := e.Sequence()
		if e.Subject != "" {
			n = uint64(e.Subject[len(e.Subject)-1])
		}
		return members[n*2654435761>>7%uint64(len(members))] == c.name
	})
}

// latency returns the given quantile of the time until events were committed that arrived
// in a period, and fails if one was not.
func (r *shareRun) latency(from, to time.Time, quantile float64) time.Duration {
	r.t.Helper()
	var took []time.Duration
	for i, at := range r.arrived {
		if at.Before(from) || !at.Before(to) {
			continue
		}
		done, ok := r.committed[uint64(i+1)]
		if !ok {
			r.t.Fatalf("event %d, stored %s ago, is not committed", i+1, r.now.Sub(at))
		}
		took = append(took, done.Sub(at))
	}
	slices.Sort(took)
	return took[min(int(math.Ceil(quantile*float64(len(took)))), len(took)-1)]
}

// backlog returns how many events are uncommitted.
func (r *shareRun) backlog() int { return len(r.arrived) - len(r.committed) }

func (r *shareRun) reset() { r.computed, r.lost, r.helped = 0, 0, 0 }

func TestClustersThatShareComputeAlmostEachEventOnce(t *testing.T) {
	t.Parallel()

	r := newShareRun(t, 1, false, 2)
	r.pass(3 * time.Second)
	begin := r.now
	r.feed(1000, 20*time.Second)
	r.pass(30 * time.Second)
	if r.helped > 10 || r.lost > 10 {
		t.Errorf("of %d events, %d were computed by a cluster that was not first, and %d for nothing", len(r.arrived), r.helped, r.lost)
	}
	if p := r.latency(begin, r.now, 0.999); p > 50*time.Millisecond {
		t.Errorf("99.9 %% of the events were committed within %s, want 50 ms", p)
	}
}

func TestEventsOfAClusterThatDiesWaitForTheShareDelay(t *testing.T) {
	t.Parallel()

	r := newShareRun(t, 2, false, 2)
	r.pass(3 * time.Second)
	r.feed(1000, 20*time.Second)
	r.pass(10 * time.Second)
	begin := r.now
	r.clusters[1].dead = true
	r.pass(20 * time.Second)
	if p := r.latency(begin.Add(-100*time.Millisecond), r.now, 0.999); p > 300*time.Millisecond {
		t.Errorf("99.9 %% of the events were committed within %s, want 300 ms", p)
	}
	if p := r.latency(begin.Add(6*time.Second), r.now, 0.999); p > 100*time.Millisecond {
		t.Errorf("when the cluster was known to be dead, 99.9 %% of the events were committed within %s, want 100 ms", p)
	}
}

// After a stall, clusters that share recover, although they have hardly more capacity
// than they need.
func TestSharingIsNotMetastable(t *testing.T) {
	t.Parallel()

	for name, stall := range map[string]struct {
		takes time.Duration
		begin func(r *shareRun, until time.Time)
	}{
		"a cluster is frozen for 300 ms":   {300 * time.Millisecond, func(r *shareRun, until time.Time) { r.clusters[1].frozen = until }},
		"a cluster is frozen for 5 s":      {5 * time.Second, func(r *shareRun, until time.Time) { r.clusters[1].frozen = until }},
		"the database stalls for 2 s":      {2 * time.Second, func(r *shareRun, until time.Time) { r.down = until }},
		"both clusters are frozen for 2 s": {2 * time.Second, func(r *shareRun, until time.Time) { r.clusters[0].frozen, r.clusters[1].frozen = until, until }},
		"a cluster computes slowly for 2 s": {2 * time.Second, func(r *shareRun, until time.Time) {
			c := r.clusters[1]
			c.compute = 10 * time.Millisecond
			r.plan(until.Sub(r.now), func() { c.compute = time.Millisecond })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := newShareRun(t, 3, false, 2)
			r.pass(3 * time.Second)
			r.feed(1800, 50*time.Second)
			r.pass(10 * time.Second)
			stall.begin(r, r.now.Add(stall.takes))
			r.pass(stall.takes)
			for range 5 {
				r.reset()
				r.pass(time.Second)
				t.Logf("computed %d, of others %d, for nothing %d; backlog %d, members %v and %v", r.computed, r.helped, r.lost, r.backlog(), r.clusters[0].members, r.clusters[1].members)
			}
			r.reset()
			r.pass(time.Second)
			if r.helped > r.computed/20 {
				t.Errorf("5 s after the stall, %d of %d computed events are those of others", r.helped, r.computed)
			}
			lost := 0
			for range 30 {
				r.reset()
				r.pass(time.Second)
				lost += r.lost
			}
			t.Logf("later: for nothing %d; backlog %d, members %v and %v", lost, r.backlog(), r.clusters[0].members, r.clusters[1].members)
			if n := r.backlog(); n > 200 {
				t.Errorf("36 s after the stall, %d events are not committed", n)
			}
		})
	}
}

var shareSeeds = flag.Uint64("share-seeds", 10, "how many runs of clusters that share")

// Members are added and removed, clocks differ by minutes, and views differ.
func TestSharingKeepsTheOrderOfSubjects(t *testing.T) {
	t.Parallel()

	seeds := *shareSeeds
	if testing.Short() {
		seeds = min(seeds, 3)
	}
	for seed := range seeds {
		r := newShareRun(t, seed, true, 2+int(seed%2))
		for _, c := range r.clusters {
			c.skew = time.Duration(r.random.Int64N(int64(20*time.Minute))) - 10*time.Minute
		}
		r.pass(time.Duration(r.random.IntN(3000)) * time.Millisecond)
		begin := r.now
		r.feed(400, 20*time.Second)
		for range 20 {
			r.pass(time.Second)
			c := r.clusters[r.random.IntN(len(r.clusters))]
			switch r.random.IntN(6) {
			case 0:
				c.frozen = r.now.Add(time.Duration(r.random.IntN(6000)) * time.Millisecond)
			case 1:
				r.down = r.now.Add(time.Duration(r.random.IntN(1500)) * time.Millisecond)
			case 2:
				var members []int
				for name := range r.clusters {
					if r.random.IntN(2) == 0 {
						members = append(members, name)
					}
				}
				if len(members) > 0 {
					c.setMembers(members)
				}
			case 3:
				c.compute = []time.Duration{time.Millisecond, 3 * time.Millisecond}[r.random.IntN(2)]
			case 4:
				c.table.SetHedge([]eventing.Hedge{{}, {Share: true}, {Share: true}, {Delay: 200 * time.Millisecond}}[r.random.IntN(4)])
			}
		}
		r.pass(60 * time.Second)
		r.latency(begin, r.now, 1) // all events are committed
	}
}
