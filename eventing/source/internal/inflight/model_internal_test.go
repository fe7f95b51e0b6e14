package inflight

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// script is the decisions of a run of the model, one byte each. A run without more
// decisions drains the table.
type script struct {
	bytes []byte
}

// n returns a number from 0 to limit-1.
func (s *script) n(limit int) int {
	if len(s.bytes) == 0 {
		return 0
	}
	b := s.bytes[0]
	s.bytes = s.bytes[1:]
	return int(b) % limit
}

func (s *script) oneIn(n int) bool { return s.n(n) == n-1 }

// randomScript returns the script of a seed.
func randomScript(seed uint64, length int) []byte {
	random := rand.New(rand.NewPCG(seed, 14))
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// modelMessage is a message of a stream in the model.
type modelMessage struct {
	stream   *modelStream
	sequence uint64
	epoch    int
	arrived  time.Time
	pending  uint64
	size     int
	subject  string
	kind     string // the type of the event
	id       EventID

	read     bool   // delivered to the table
	entry    *Entry // in flight; nil before and afterwards
	finished bool
	acked    bool // the stream has received the acknowledgement
	kills    bool // ends the function's process
	finishAt time.Time
	deleted  bool          // a row, from the database
	unheard  bool          // a row that the table does not know
	of       *modelMessage // of a row: the message from which it was made
}

func (m *modelMessage) Sequence() uint64                 { return m.sequence }
func (m *modelMessage) Arrived() time.Time               { return m.arrived }
func (m *modelMessage) Pending() uint64                  { return m.pending }
func (m *modelMessage) Size() int                        { return m.size }
func (m *modelMessage) WithoutPayload() eventing.Message { return m }
func (m *modelMessage) Event() event.Event               { return event.New() }
func (m *modelMessage) Ack() error                       { return nil }
func (m *modelMessage) InProgress() error                { return nil }
func (m *modelMessage) Nak() error                       { return nil }

// modelStream is a partition of a stream, in the table and in the model.
type modelStream struct {
	number    int
	partition *Partition
	epoch     int
	first     uint64
	messages  []*modelMessage
	late      []*modelMessage // to be delivered before the partition is complete
	unread    int             // the index of the first message that was never delivered
	confirmed uint64          // the floor that the table knows
}

func (s *modelStream) floor() uint64 {
	for _, m := range s.messages {
		if !m.acked {
			return m.sequence
		}
	}
	return s.first + uint64(len(s.messages))
}

// model drives a table like a source, and knows the invariants.
type model struct {
	t *testing.T
	*script
	trace []string

	now      time.Time
	table    *Table
	streams  []*modelStream
	requests [][]*Entry
	lookups  [][]*Entry
	storing  [][]*Entry      // that are being deferred
	saving   []*Entry        // being stored behind a dead letter
	held     map[*Entry]bool // by a request or lookup, or being deferred or stored

	rows                             []*modelStream // of the database
	stored, deferrals                *modelStream   // nil if no order is kept
	storer, loader, deferrer, leaser goroutine
	steps                            []bool // the kinds of steps of this run

	asleep  time.Time // the dispatcher sleeps until then, unless it is woken
	eager   bool      // NextRequest is called even where it must return nothing
	events  int       // limit of the function for one request
	bytes   int
	many    int             // multiplies the messages that are stored at once
	lagging bool            // many messages are behind each, so that an old message is part of a backlog
	down    bool            // the function does not answer
	failing map[string]bool // the types for which it is unavailable
	ledger  map[EventID]bool
	blocked map[EventID]string // the dead letters, with their subjects
	running map[*Entry]bool    // running when their subject was blocked
	closes  bool               // the process ends before all messages are finished

	sentAt map[*Entry]time.Time // of requests, by their first entry
	ended  map[*Entry]bool      // the requests that were open when the process ended
	killed bool                 // the process also ends for other reasons
}

// modelKinds are the types of events.
var modelKinds = []string{"p", "q"}

const modelIdle = time.Hour

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	tail := m.trace[max(0, len(m.trace)-80):]
	m.t.Fatalf("%s\ntable: %s\ntrace:\n%s", fmt.Sprintf(format, args...), m.table, strings.Join(tail, "\n"))
}

func (m *model) logf(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf("%8s ", m.now.Sub(modelStart))+fmt.Sprintf(format, args...))
}

var modelStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// runModel runs a script, then drains the table.
func runModel(t *testing.T, decisions []byte) {
	t.Helper()

	m := &model{
		t: t, script: &script{decisions}, now: modelStart,
		failing: map[string]bool{}, held: map[*Entry]bool{}, ledger: map[EventID]bool{}, blocked: map[EventID]string{}, running: map[*Entry]bool{},
		sentAt: map[*Entry]time.Time{}, ended: map[*Entry]bool{},
	}
	cfg := Config{
		Now:        func() time.Time { return m.now },
		InFlight:   []int{1, 2, 3, 4, 8, 20, 64}[m.n(7)],
		Rate:       []int{0, 0, 0, 7, 1000}[m.n(5)],
		MaxBatch:   func() (int, int) { return m.events, m.bytes },
		MaxBytes:   []int{32 << 10, 128 << 10, 1 << 20}[m.n(3)],
		CatchUpLag: []time.Duration{0, time.Second}[m.n(2)],
		Ordered:    m.n(3) > 0,
		Lease:      m.n(3) > 0,
		Defers:     true,
	}
	m.many = []int{1, 1, 6}[m.n(3)]
	m.eager, m.closes, m.killed = m.n(2) == 0, m.n(8) == 0, m.n(2) == 0
	hedgeAtEnd := []eventing.Hedge{{}, {Delay: 300 * time.Millisecond}, {Share: true}}[m.n(3)]
	m.bytes = []int{2000, 1 << 20}[m.n(2)]
	cfg.Ledger = cfg.Lease || m.n(2) == 0
	m.table = New(cfg)
	m.table.SetShareDelay(100 * time.Millisecond)
	m.table.committed = float64(m.n(2)) // 0: entries are left to others without a lookup
	m.stored, m.deferrals = m.rowsOf(8, m.table.StoredPartition()), m.rowsOf(9, m.table.DeferredPartition())
	all := m.n(3) == 0
	for range modelSteps {
		m.steps = append(m.steps, m.n(4) > 0 || all)
	}
	for number := range 1 + m.n(3) {
		s := &modelStream{number: number, partition: m.table.AddPartition(), first: []uint64{1, sequencePage - 9, 5 * blockSize}[m.n(3)]}
		m.streams = append(m.streams, s)
		m.store(s, m.n(10))
		m.open(s)
	}
	if m.n(3) > 0 {
		m.table.SetHedge(eventing.Hedge{})
	}
	if cfg.Ordered && m.n(3) > 0 {
		m.table.Block()
	}
	m.logf("%+v", cfg)
	m.check()
	for len(m.script.bytes) > 0 {
		m.step()
		m.check()
	}
	if m.closes {
		m.close()
		return
	}
	for _, s := range m.parts() {
		for _, message := range s.messages {
			message.kills = false // no commit at the end would show which event is the cause
		}
	}
	m.killed = true // nor that these are harmless now
	m.drain("as it is")
	clear(m.failing)
	m.down = false
	m.unblockAll()
	m.logf("hedge %+v, nothing blocked", hedgeAtEnd)
	m.table.SetHedge(hedgeAtEnd)
	m.drain("at the end")
	for _, s := range m.streams {
		for _, message := range s.messages {
			if !message.finished {
				m.failf("message %d/%d is not finished at the end", s.number, message.sequence)
			}
		}
	}
	m.checkRows()
}

// modelSteps is the number of kinds of steps. Most runs omit some of them, so that states that
// these would end last longer.
const modelSteps = 31

// step executes one operation.
func (m *model) step() {
	s := m.streams[m.n(len(m.streams))]
	step := m.n(modelSteps)
	if !m.steps[step] {
		step = 6
	}
	switch step {
	case 0, 1:
		m.store(s, m.many*(1+m.n(8)))
	case 2, 3, 4:
		m.pull(s, 1+m.n(12))
	case 5:
		m.advance([]time.Duration{time.Millisecond, 5 * time.Millisecond, 60 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 40 * time.Second}[m.n(6)])
	case 6, 7, 8:
		m.dispatch(1 + m.n(4))
	case 9, 10, 11:
		for range 1 + m.n(3) {
			if len(m.requests) > 0 {
				m.complete(m.n(len(m.requests)), true)
			}
		}
	case 12, 13:
		m.lookUp(1 + m.n(20))
	case 14, 15:
		if len(m.lookups) > 0 {
			m.answer(m.n(len(m.lookups)), m.oneIn(3))
		}
	case 16:
		hedge := []eventing.Hedge{{}, {}, {Delay: 300 * time.Millisecond}, {Delay: 5 * time.Second}, {Share: true}, {Share: true}, {Standby: true}}[m.n(7)]
		m.logf("hedge %+v", hedge)
		m.table.SetHedge(hedge)
	case 17:
		prefer := m.n(4)
		m.logf("preference %d", prefer)
		if prefer == 0 {
			m.table.SetPreference(nil)
		} else {
			m.table.SetPreference(func(e *Entry) bool { return prefer == 1 || prefer == 2 && e.Sequence()%2 == 0 })
		}
	case 18:
		switch m.n(4) {
		case 0, 1:
			m.lagging = !m.lagging
			m.logf("lagging %t", m.lagging)
		case 2:
			m.down = !m.down
			m.logf("function down %t", m.down)
		case 3:
			kind := modelKinds[m.n(len(modelKinds))]
			m.failing[kind] = !m.failing[kind]
			m.logf("type %s unavailable %t", kind, m.failing[kind])
		}
	case 19:
		m.unblock(m.n(4))
	case 20:
		switch m.n(4) {
		case 0:
			m.abandon(s)
		case 1:
			m.reopen(s)
		default:
			m.copyOf(s)
		}
	case 21:
		m.confirm(s)
	case 25, 26:
		m.toDefer(2)
		m.toStore(1 + m.n(5))
	case 27:
		if len(m.saving) > 0 {
			m.save([]int{saved, saved, notSaved, savedUnheard}[m.n(4)])
		}
	case 28:
		m.load(1 + m.n(4))
	case 29:
		m.deleteRows()
		m.runDeferred(m.n(3))
	case 30:
		m.witness(!m.down)
	case 22:
		if len(s.late) > 0 {
			m.redeliver(s)
		}
	case 24:
		m.lease([]time.Duration{0, time.Second, time.Minute}[m.n(3)])
	case 23:
		s.partition.Heartbeat(m.now.Add(-time.Second), m.now, func(message eventing.Message) {
			if mm, _ := message.(*modelMessage); mm.finished || mm.epoch != s.epoch {
				m.failf("heartbeat of %d, which is not in flight", message.Sequence())
			}
		})
		m.commitElsewhere(s)
		m.table.DeferLacking(func(e *Entry) bool { return e.Sequence()%3 == 0 })
		for len(m.storing) > 0 {
			m.deferred(0, true)
		}
	}
}

// store adds messages to a stream.
func (m *model) store(s *modelStream, n int) {
	for range n {
		sequence := s.first + uint64(len(s.messages))
		subject := []string{"", "a", "a", "b", "c", "d"}[m.n(6)]
		message := &modelMessage{
			stream: s, sequence: sequence, epoch: s.epoch, kind: modelKinds[m.n(len(modelKinds))], arrived: m.now, size: []int{10, 100, 800, 3000}[m.n(4)], subject: subject,
			id:    EventID{Source: fmt.Sprintf("/%d/%d", s.number, s.epoch), ID: fmt.Sprint(sequence)},
			kills: m.n(16) == 15,
		}
		s.messages = append(s.messages, message)
	}
}

// open opens a partition in the state that an earlier process left: some of the
// messages are acknowledged, and the others are redelivered in any order.
func (m *model) open(s *modelStream) {
	s.partition.Opened()
	for _, message := range s.messages {
		if m.n(3) == 0 {
			message.read, message.finished, message.acked = true, true, true
			m.ledger[message.id] = true
		} else {
			s.late = append(s.late, message)
			if m.n(2) == 0 && !message.kills {
				m.ledger[message.id] = true
			}
		}
	}
	if len(s.messages) > 0 && m.n(2) == 0 {
		s.partition.LookUpBelow(s.first + uint64(len(s.messages)))
	}
	s.unread = len(s.messages)
	m.shuffle(s)
}

func (m *model) shuffle(s *modelStream) {
	for i := range s.late {
		k := i + m.n(len(s.late)-i)
		s.late[i], s.late[k] = s.late[k], s.late[i]
	}
}

// redeliver delivers a message that was delivered before.
func (m *model) redeliver(s *modelStream) {
	if len(s.late) > 0 {
		message := s.late[0]
		s.late = s.late[1:]
		m.receive(message)
	}
}

// pull reads new messages as far as there is room, and reports whether there were any.
func (m *model) pull(s *modelStream, most int) bool {
	s.partition.evictedAt = time.Time{} // Room waits until it may evict again
	n, bytes := s.partition.roomNow()
	if n > 0 && s.partition.Incomplete() && len(s.late) == 0 {
		m.logf("complete %d", s.number)
		s.partition.Complete()
		return true
	}
	pulled := false
	for n = min(n, most); n > 0; n-- {
		switch {
		case len(s.late) > 0:
			m.redeliver(s)
		case s.partition.Incomplete():
			return pulled
		case s.unread < len(s.messages):
			message := s.messages[s.unread]
			if bytes -= message.size; bytes < 0 && pulled { // a single message may be larger
				return pulled
			}
			s.unread++
			m.receive(message)
		default:
			return pulled
		}
		pulled = true
	}
	return pulled
}

func (m *model) receive(message *modelMessage) {
	m.t.Helper()
	s := message.stream
	if message.acked && message.sequence < s.confirmed {
		return // the stream redelivers nothing that it knows to be acknowledged
	}
	message.pending = uint64(len(s.messages)) - (message.sequence - s.first)
	if m.lagging {
		message.pending += blockSize
	}
	want := Added
	switch {
	case message.finished:
		want = Copy
	case message.entry != nil:
		want = Known
	}
	d := &delivery.Delivery{Event: event.New()}
	d.Event.SetType(message.kind)
	got := s.partition.Receive(message, d, message.id, message.subject)
	m.logf("receive %d/%d %q: %d", s.number, message.sequence, message.subject, got)
	if got != want {
		m.failf("receive %d/%d: %d, want %d", s.number, message.sequence, got, want)
	}
	message.read = true
	switch got {
	case Added:
		message.entry = s.partition.entries.get(message.sequence)
	case Copy:
		message.acked = true
	case Known:
	}
}

// copyOf redelivers a message of which the stream has not received the acknowledgement.
func (m *model) copyOf(s *modelStream) {
	var may []*modelMessage
	for _, message := range s.messages {
		if message.read && !message.acked && !slices.Contains(s.late, message) {
			may = append(may, message)
		}
	}
	if len(may) > 0 {
		m.receive(may[m.n(len(may))])
	}
}

// reopen opens a stream again: every unacknowledged message is redelivered, in any order.
func (m *model) reopen(s *modelStream) {
	m.logf("reopen %d", s.number)
	s.partition.Opened()
	s.late = nil
	for _, message := range s.messages[:s.unread] {
		if !message.acked {
			s.late = append(s.late, message)
		}
	}
	m.shuffle(s)
}

// abandon deletes a stream and creates it again, with other messages.
func (m *model) abandon(s *modelStream) {
	m.logf("abandon %d", s.number)
	s.partition.Abandon()
	s.epoch++
	s.messages, s.late, s.unread, s.confirmed = nil, nil, 0, 0
	m.store(s, m.n(8))
	m.open(s)
}

// confirm makes the table forget messages whose acknowledgement the stream has
// received, and acknowledge the others again.
func (m *model) confirm(s *modelStream) {
	before := m.now.Add(-time.Second)
	again := m.n(2) == 0
	s.confirmed = s.floor()
	heard := map[*modelMessage]bool{}
	n := s.partition.Confirm(s.floor(), again, before, func(message eventing.Message) {
		if mm, ok := message.(*modelMessage); !ok || !mm.finished || mm.epoch != s.epoch {
			m.failf("confirm %d/%d: it is not finished", s.number, message.Sequence())
		} else {
			heard[mm] = true
		}
	})
	m.logf("confirm %d below %d again %t: %d", s.number, s.floor(), again, n)
	if !again {
		return
	}
	for _, message := range s.messages {
		if message.entry != nil {
			break
		}
		if message.finished && !message.acked && message.finishAt.Before(before) && !heard[message] {
			m.failf("confirm %d: the lost acknowledgement of %d is not sent again", s.number, message.sequence)
		}
	}
	for message := range heard {
		message.acked = true
	}
}

// commitElsewhere commits an event in another cluster.
func (m *model) commitElsewhere(s *modelStream) {
	if s.unread > 0 {
		if message := s.messages[m.n(s.unread)]; !message.kills {
			m.ledger[message.id] = true
		}
	}
}

// advance sets the clock forward.
func (m *model) advance(d time.Duration) {
	m.now = m.now.Add(d)
	m.logf("clock +%s", d)
}

// awake reports whether the dispatcher would call NextRequest now.
func (m *model) awake() bool {
	select {
	case <-m.table.wake:
		m.asleep = time.Time{}
	default:
	}
	return !m.now.Before(m.asleep)
}

// dispatch opens up to n requests, and reports whether it opened any.
func (m *model) dispatch(n int) bool {
	m.t.Helper()
	for i := range n {
		awake := m.awake()
		if !awake && !m.eager {
			return i > 0
		}
		before := m.table.Counts()
		batch, wait := m.table.NextRequest(modelIdle)
		early := !awake && m.asleep.Sub(m.now) > time.Microsecond // the rate is a float
		if early && (batch != nil || m.table.Counts() != before) {
			m.failf("nothing woke the dispatcher, which sleeps for %s, though there is something to do: %d to send", m.asleep.Sub(m.now), len(batch))
		}
		if batch == nil {
			if wait <= 0 || wait > modelIdle {
				m.failf("nothing to send, and wait is %s", wait)
			}
			m.checkIdle()
			if awake {
				m.asleep = m.now.Add(wait)
			}
			return i > 0
		}
		m.sent(batch)
	}
	return true
}

// sent checks and records a request.
func (m *model) sent(batch []*Entry) {
	m.t.Helper()
	var names []string
	size := 0
	for i, e := range batch {
		message, ok := e.Message.(*modelMessage)
		names = append(names, fmt.Sprintf("%d/%d", message.stream.number, e.Sequence()))
		switch {
		case !ok || e.stale() || message.entry != e || message.finished:
			m.failf("send %v: it is not in flight", names)
		case m.held[e]:
			m.failf("send %v: it is in a request or lookup already", names)
		case m.table.hedge.Standby && !e.Delivery.DeadLetter:
			m.failf("send %v: the cluster stands by", names)
		case len(batch) > 1 && !e.GoesTogether():
			m.failf("send %v: it does not go with others", names)
		case e.circuit.holds(e) && e.probing == nil && !e.mayTry():
			m.failf("send %v: its type is probed, and this is no probe", names)
		case i > 0 && e.before(batch[i-1]):
			m.failf("send %v: not in the order of service", names)
		}
		m.held[e] = true
		size += e.payload
		if m.table.cfg.Ordered && e.Subject != "" {
			m.checkOrder(e, message)
		}
	}
	if batch[0].mayTry() {
		m.checkTrial(batch[0])
	}
	m.sentAt[batch[0]] = m.now
	m.logf("send %s", strings.Join(names, " "))
	if len(batch) > max(1, m.events) || len(batch) > 1 && size > m.bytes {
		m.failf("send %v: more than %d events or %d bytes", names, m.events, m.bytes)
	}
	m.requests = append(m.requests, batch)
}

// checkIdle checks, when nothing is sent, that nothing could be sent.
func (m *model) checkIdle() {
	m.t.Helper()
	t := m.table
	if t.sending >= t.cfg.InFlight || m.events == 0 && t.sending >= fewRequests || t.cfg.Rate > 0 {
		return
	}
	if t.firstSingle() != nil || t.together.Len() > 0 && t.pace(m.events, m.now) <= 0 {
		if m.table.careful(m.now) && m.table.afterBreak(m.now) > 0 {
			return // one at a time after a break
		}
		m.failf("nothing is sent, though events are ready")
	}
}

// lease answers the table's request for a lease, if there is one, and reports whether there
// was: the lease is granted for a time, or not at all.
func (m *model) lease(granted time.Duration) bool {
	if !m.leaser.woken(m.table.LeaseWanted()) {
		return false
	}
	m.leaser.awake = false
	m.table.Released()
	e := m.table.NextLease()
	if e == nil {
		return false
	}
	m.logf("lease %d for %s", e.Sequence(), granted)
	m.table.SetLease(e, m.now.Add(granted))
	return true
}

// checkTrial checks that a suspect may be tried.
func (m *model) checkTrial(e *Entry) {
	m.t.Helper()
	if m.table.cfg.Lease && !m.now.Before(e.leaseUntil) {
		m.failf("try %d: another cluster may have the lease", e.Sequence())
	}
	for _, request := range m.requests {
		if other := request[0]; other.mayTry() && (!other.aside || e.breaks > 0 || m.now.Sub(m.sentAt[other]) < asideAfter) {
			m.failf("try %d, which broke %d connections: %d is being tried", e.Sequence(), e.breaks, other.Sequence())
		}
	}
}

// checkOrder checks that it is the turn of an entry.
func (m *model) checkOrder(e *Entry, message *modelMessage) {
	m.t.Helper()
	s := message.stream
	for _, earlier := range s.messages[:message.sequence-s.first] {
		if s != m.deferrals && earlier.subject == message.subject && !earlier.finished && !earlier.deleted && !earlier.unheard {
			m.failf("send %d/%d: %d comes before it", s.number, message.sequence, earlier.sequence)
		}
	}
	for _, request := range m.requests {
		for _, other := range request {
			if other.partition == e.partition && other.Subject == e.Subject {
				m.failf("send %d/%d: %d of its subject is being sent", s.number, message.sequence, other.Sequence())
			}
		}
	}
	if _, itself := m.blocked[e.ID]; itself || m.running[e] || s == m.deferrals {
		return
	}
	for _, row := range m.stored.messages {
		if row.of.stream == s && row.of.epoch == message.epoch && row.of.sequence < message.sequence && row.subject == e.Subject && !row.finished && !row.unheard {
			m.failf("send %d/%d: %d is stored and comes before it", s.number, message.sequence, row.sequence)
		}
	}
	for id, subject := range m.blocked {
		if subject == e.Subject {
			m.failf("send %d/%d: its subject is blocked by %v", s.number, message.sequence, id)
		}
	}
}

// complete ends a request, successfully or, if any is set, with any outcome.
func (m *model) complete(i int, any bool) {
	m.t.Helper()
	entries := m.requests[i]
	m.requests = slices.Delete(m.requests, i, i+1)
	r := Request{
		Entries: entries, Next: make([]Next, len(entries)), After: make([]time.Duration, len(entries)), Took: m.now.Sub(m.sentAt[entries[0]]),
		Together: entries[0].GoesTogether(), Answered: true, Draining: any && m.oneIn(8),
	}
	broken := m.breaks(entries, any)
	if any && m.oneIn(3) {
		m.events = []int{0, 1, 5, 50}[m.n(4)] // the function's new limit
	}
	unavailable := any && (m.down || m.oneIn(4))
	r.Answered = false
	for k, e := range entries {
		if e.stale() {
			r.Next[k] = Drop
			continue
		}
		message, _ := e.Message.(*modelMessage)
		if e.Evicted {
			if any && m.oneIn(4) {
				r.Next[k], r.After[k] = Unsent, 200*time.Millisecond
				continue
			}
			e.Fetched(message)
		}
		switch {
		case broken:
			r.Next[k], e.Delivery.Alone = Broken, true
			continue
		case unavailable, m.failing[message.kind] && !e.Delivery.DeadLetter:
			r.Next[k], r.After[k] = Unavailable, []time.Duration{20 * time.Millisecond << min(e.attempts, 8), 2 * time.Second, 20 * time.Second}[m.n(3)]
			continue
		case any:
			r.Next[k], r.After[k] = m.outcome(e)
		}
		r.Answered = true
	}
	names := make([]string, len(entries))
	for k, e := range entries {
		names[k] = fmt.Sprintf("%d/%d:%d", e.partition.number(m), e.Sequence(), r.Next[k])
		if r.Next[k] == Finish && !e.stale() {
			m.finished(e)
		}
	}
	for k, e := range entries {
		r.Committed = r.Committed || r.Next[k] == Finish && !e.Delivery.DeadLetter
	}
	m.logf("complete %s answered %t committed %t draining %t", strings.Join(names, " "), r.Answered, r.Committed, r.Draining)
	for _, s := range m.table.Complete(r) {
		m.struck(s)
	}
	for k, e := range entries {
		delete(m.held, e)
		message, _ := e.Message.(*modelMessage)
		switch {
		case r.Next[k] == Finish:
			m.acknowledge(e)
		case r.Next[k] == Drop && !e.stale():
			if message.entry = nil; message.stream != m.deferrals { // otherwise it stays deferred
				message.stream.late = append(message.stream.late, message)
			}
		}
	}
}

// breaks reports whether the connection of a request breaks: the process ends on one of
// its events, or on one of another request meanwhile, or for another reason.
func (m *model) breaks(entries []*Entry, any bool) bool {
	first := entries[0]
	delete(m.sentAt, first)
	ended := m.ended[first]
	delete(m.ended, first)
	if first.Delivery.Struck() {
		first.Delivery.DeadLetter = true // as in delivery
	}
	if first.Delivery.DeadLetter {
		return false
	}
	kills := any && m.killed && m.oneIn(8)
	for _, e := range entries {
		message, _ := e.Message.(*modelMessage)
		kills = kills || message.kills && message.entry == e && !ended
	}
	if kills {
		for _, request := range m.requests {
			m.ended[request[0]] = true
		}
	}
	return kills || ended
}

// struck checks a strike that counts.
func (m *model) struck(s Struck) {
	m.t.Helper()
	message, _ := s.Entry.Message.(*modelMessage)
	m.logf("strike %d of %d", s.Strikes, s.Entry.Sequence())
	if !m.killed && !message.kills {
		m.failf("%d has a strike, and did not end the process", s.Entry.Sequence())
	}
	if s.Strikes > delivery.MaxStrikes {
		m.failf("%d has %d strikes", s.Entry.Sequence(), s.Strikes)
	}
}

func (p *Partition) number(m *model) int {
	return slices.IndexFunc(m.streams, func(s *modelStream) bool { return s.partition == p })
}

// outcome returns what happens to an event that was sent, as delivery and the source
// decide.
func (m *model) outcome(e *Entry) (Next, time.Duration) {
	after := []time.Duration{10 * time.Millisecond, time.Second, 5 * time.Second}[m.n(3)]
	switch what := m.n(12); {
	case e.Delivery.DeadLetter && what > 2:
		if m.table.cfg.Ordered && e.Subject != "" {
			m.block(e)
		}
		return Finish, 0
	case e.Delivery.DeadLetter:
		return Retry, after
	case what < 6:
		return Finish, 0
	case what == 6: // pending
		e.Delivery.Alone = true
		return Pending, 0
	case what == 7: // failed
		e.Delivery.Alone = true
		return Retry, after
	case what == 8: // rejected
		e.Delivery.DeadLetter = true
		return Again, 0
	case what == 9 && e.lane == nil, what > 8 && e.partition == m.table.deferredPart:
		return Drop, 0
	case what == 10: // the deployment lacks something
		e.Delivery.Lack.Fingerprint = "42703 t"
		return []Next{Defer, Retry}[e.Sequence()%2], after
	default:
		return Retry, after
	}
}

// toDefer takes entries to defer.
func (m *model) toDefer(n int) bool {
	m.t.Helper()
	if !m.deferrer.woken(m.table.DeferReady()) {
		return false
	}
	entries := m.table.NextToDefer(n)
	if len(entries) == 0 {
		m.deferrer.awake = false
		return false
	}
	m.logf("defer %d", len(entries))
	for _, e := range entries {
		if e.stale() || m.held[e] {
			m.failf("defer %d: it is not to be deferred", e.Sequence())
		}
		m.held[e] = true
	}
	m.storing = append(m.storing, entries)
	return true
}

// deferred ends storing entries, all or some of them.
func (m *model) deferred(i int, some bool) {
	m.t.Helper()
	entries := m.storing[i]
	m.storing = slices.Delete(m.storing, i, i+1)
	done := make([]bool, len(entries))
	want := 0
	for k, e := range entries {
		done[k] = !some || e.Sequence()%4 > 0
		if e.stale() || !done[k] {
			continue
		}
		want++
		if m.table.cfg.Ordered && e.Subject != "" {
			m.block(e)
		}
	}
	finished := m.table.Deferred(entries, done, time.Second)
	m.logf("deferred %d of %d", len(finished), len(entries))
	if len(finished) != want {
		m.failf("deferred: %d are finished, want %d", len(finished), want)
	}
	for _, e := range entries {
		delete(m.held, e)
	}
	for _, e := range finished {
		message, _ := e.Message.(*modelMessage)
		m.addRow(m.deferrals, message)
		m.settled(e)
		m.acknowledge(e)
	}
}

func (m *model) block(e *Entry) {
	m.logf("block %q behind %v", e.Subject, e.ID)
	m.blocked[e.ID] = e.Subject
	for _, s := range m.parts() {
		if l := s.partition.lanes[e.Subject]; l != nil && l.running != nil {
			m.running[l.running] = true
		}
	}
	m.table.Block(ledger.BlockedEvent{Subject: e.Subject, Source: e.ID.Source, ID: e.ID.ID})
}

// unblock loads the blocked subjects, the first time, or unblocks one.
func (m *model) unblock(n int) {
	if m.table.blocked == nil {
		m.logf("nothing is blocked")
		m.table.Block()
		return
	}
	for _, e := range m.table.Blocking(n) {
		id := EventID{Source: e.Source, ID: e.ID}
		if m.blocked[id] != e.Subject {
			m.failf("%v blocks %q", e, m.blocked[id])
		}
		m.logf("unblock %v", e)
		delete(m.blocked, id)
		m.table.Unblock([]ledger.BlockedEvent{e})
	}
}

func (m *model) unblockAll() {
	m.unblock(0)
	for len(m.blocked) > 0 {
		m.unblock(3)
	}
}

// finished records that an entry is done.
func (m *model) finished(e *Entry) {
	m.t.Helper()
	m.settled(e)
	m.ledger[e.ID] = true
}

// settled records that an entry is no longer in flight: it is done, or a row.
func (m *model) settled(e *Entry) {
	m.t.Helper()
	message, _ := e.Message.(*modelMessage)
	if message.finished {
		m.failf("%d is finished twice", e.Sequence())
	}
	message.finished, message.entry, message.finishAt = true, nil, m.now
}

// acknowledge acknowledges to the stream, which may not receive it.
func (m *model) acknowledge(e *Entry) {
	_ = e.Tell(func() error {
		if message, _ := e.Message.(*modelMessage); slices.Contains(m.rows, message.stream) || m.n(5) > 0 {
			message.acked = true
		}
		return nil
	})
}

// lookUp takes entries to look up, if NextLookup would not wait.
func (m *model) lookUp(n int) bool {
	m.t.Helper()
	if m.table.lookups.len() == 0 || m.table.failing && m.table.asking > 0 {
		return false
	}
	entries := m.table.NextLookup(n)
	m.logf("look up %d", len(entries))
	for _, e := range entries {
		if e.stale() || m.held[e] {
			m.failf("look up %d: it is not to be looked up", e.Sequence())
		}
		m.held[e] = true
	}
	m.lookups = append(m.lookups, entries)
	return true
}

// answer ends a lookup.
func (m *model) answer(i int, fails bool) {
	m.t.Helper()
	entries := m.lookups[i]
	m.lookups = slices.Delete(m.lookups, i, i+1)
	var committed []bool
	want := 0
	if !fails {
		for _, e := range entries {
			committed = append(committed, m.ledger[e.ID])
			if m.ledger[e.ID] && !e.stale() {
				want++
			}
		}
	}
	finished := m.table.LookedUp(entries, committed)
	m.logf("looked up %d, failed %t: %d committed", len(entries), fails, want)
	if len(finished) != want {
		m.failf("looked up: %d are finished, want %d", len(finished), want)
	}
	for _, e := range entries {
		delete(m.held, e)
	}
	for _, e := range finished {
		m.finished(e)
		m.acknowledge(e)
	}
}

// close ends the process: every unfinished entry is returned once.
func (m *model) close() {
	m.t.Helper()
	back := map[*Entry]bool{}
	handBack := func() {
		for _, e := range m.table.Close() {
			if message, _ := e.Message.(*modelMessage); m.held[e] || back[e] || message.entry != e {
				m.failf("hand back %d, which is not in flight, or in a request or lookup", e.Sequence())
			}
			back[e] = true
		}
	}
	m.logf("close")
	handBack()
	for len(m.lookups) > 0 {
		m.answer(0, m.oneIn(2))
	}
	for len(m.requests) > 0 {
		m.complete(0, m.oneIn(2))
	}
	for len(m.storing) > 0 {
		m.deferred(0, true)
	}
	if len(m.saving) > 0 {
		m.save(m.n(3))
	}
	if batch, _ := m.table.NextRequest(modelIdle); batch != nil || m.table.NextLookup(1) != nil || m.table.NextToDefer(1) != nil || m.table.NextToStore(1) != nil || m.table.Unblocked(1) != nil {
		m.failf("there is something to do after the end")
	}
	handBack()
	for _, s := range m.parts() {
		for _, message := range s.messages {
			if message.entry != nil && !back[message.entry] {
				m.failf("%d/%d is not handed back", s.number, message.sequence)
			}
		}
	}
	if m.table.Counts() != [Finished]int{} {
		m.failf("after the end the table counts %v", m.table.Counts())
	}
}
