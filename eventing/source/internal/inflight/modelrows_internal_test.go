package inflight

import (
	"fmt"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing/delivery"
)

// The model's database: it stores events behind dead letters and deferred events as rows, and
// delivers them again. As in a source, only a token of the table wakes its goroutines.

// goroutine is a goroutine of a source that sleeps until the table wakes it.
type goroutine struct{ awake bool }

// woken receives a token from a channel of the table, and reports whether the goroutine is
// awake.
func (g *goroutine) woken(channel <-chan struct{}) bool {
	select {
	case <-channel:
		g.awake = true
	default:
	}
	return g.awake
}

// rowsOf returns a stream for the rows of a partition; nil if there is no partition.
func (m *model) rowsOf(number int, p *Partition) *modelStream {
	if p == nil {
		return nil
	}
	s := &modelStream{number: number, partition: p, first: 1}
	m.rows = append(m.rows, s)
	return s
}

// parts returns the streams, including those of the rows.
func (m *model) parts() []*modelStream { return slices.Concat(m.streams, m.rows) }

// addRow adds the row of a message. Its positions ascend.
func (m *model) addRow(s *modelStream, of *modelMessage) *modelMessage {
	row := *of
	row.of = of
	row.stream, row.sequence, row.epoch, row.pending = s, s.first+uint64(len(s.messages)), 0, 0
	row.read, row.entry, row.finished, row.acked = true, nil, false, false
	s.messages = append(s.messages, &row)
	s.unread = len(s.messages)
	return &row
}

// row returns the row of an event; nil if there is none or it is deleted.
func (s *modelStream) row(id EventID) *modelMessage {
	for _, row := range s.messages {
		if row.id == id && !row.deleted {
			return row
		}
	}
	return nil
}

// receiveRow delivers a row, and reports whether it was added.
func (m *model) receiveRow(row *modelMessage, d *delivery.Delivery) (added bool) {
	m.t.Helper()
	want := Added
	switch {
	case row.entry != nil:
		want = Known
	case row.finished && row.stream == m.stored:
		want = Copy
	}
	d.Event = event.New()
	d.Event.SetType(row.kind)
	got := row.stream.partition.Receive(row, d, row.id, row.subject)
	m.logf("load %d/%d %q: %d", row.stream.number, row.sequence, row.subject, got)
	if got != want {
		m.failf("load %d/%d: %d, want %d", row.stream.number, row.sequence, got, want)
	}
	if got == Added {
		row.entry = row.stream.partition.entries.get(row.sequence)
	}
	return got == Added
}

// deleteRows deletes the rows of finished events.
func (m *model) deleteRows() (deleted bool) {
	for _, s := range m.rows {
		for _, row := range s.messages {
			if row.acked && !row.deleted {
				row.deleted, deleted = true, true
			}
		}
	}
	m.loader.awake = m.loader.awake || deleted && m.stored != nil
	return deleted
}

// toStore takes entries to store behind a dead letter, if something woke the goroutine
// that stores, and the previous ones are stored.
func (m *model) toStore(n int) bool {
	m.t.Helper()
	if m.stored == nil || len(m.saving) > 0 {
		return false
	}
	awake := m.storer.woken(m.table.StoreReady())
	if !awake && !m.eager {
		return false
	}
	entries := m.table.NextToStore(n)
	if len(entries) == 0 {
		m.storer.awake = false
		return false
	}
	if !awake {
		m.failf("nothing woke the goroutine that stores events: %d are to be stored", len(entries))
	}
	m.logf("store %d", len(entries))
	for _, e := range entries {
		if e.stale() || m.held[e] {
			m.failf("store %d: it is not to be stored", e.Sequence())
		}
		m.held[e] = true
	}
	m.saving = entries
	return true
}

// The possible results of a transaction.
const (
	saved = iota
	notSaved
	savedUnheard // the answer to the commit was lost
)

// save ends storing entries.
func (m *model) save(how int) {
	m.t.Helper()
	entries := m.saving
	m.saving = nil
	var now []bool
	sizes := make([]int, len(entries))
	want := 0
	for i, e := range entries {
		message, _ := e.Message.(*modelMessage)
		sizes[i] = message.size
		if how == notSaved {
			continue
		}
		is := m.stored.row(e.ID) == nil
		if is {
			m.addRow(m.stored, message).unheard = how == savedUnheard
		}
		if how == saved {
			now = append(now, is)
			m.stored.row(e.ID).unheard = false
			if !e.stale() {
				want++
			}
		}
	}
	finished := m.table.Stored(entries, now, sizes)
	m.logf("stored %d: %d", len(entries), how)
	if len(finished) != want {
		m.failf("stored: %d are finished, want %d", len(finished), want)
	}
	for _, e := range entries {
		delete(m.held, e)
	}
	for _, e := range finished {
		m.settled(e)
		m.acknowledge(e)
	}
}

// load delivers up to each stored events of each subject whose dead letters have a verdict, if
// something woke the goroutine that loads. It reports whether there were any.
func (m *model) load(each int) bool {
	m.t.Helper()
	if m.stored == nil {
		return false
	}
	awake := m.loader.woken(m.table.ToDeliver())
	if !awake && !m.eager {
		return false
	}
	subjects := m.table.Unblocked(storedSubjectsOfModel)
	more := false
	for subject, events := range subjects {
		var rows []*modelMessage
		settled := false
		for _, row := range m.stored.messages {
			if row.subject == subject && !row.deleted && len(rows) < each {
				rows = append(rows, row)
				settled = settled || row.finished
			}
		}
		if !awake {
			if !settled && len(rows) > 0 {
				m.failf("nothing woke the goroutine that delivers stored events: there are some of %q", subject)
			}
			continue
		}
		for _, row := range rows {
			more = m.receiveRow(row, &delivery.Delivery{}) || more
		}
		if len(rows) == 0 {
			m.table.NoneStored(subject, events)
		}
	}
	if !more {
		m.loader.awake = false
	}
	return more
}

const storedSubjectsOfModel = 64

// runDeferred runs up to n deferred events.
func (m *model) runDeferred(n int) (ran bool) {
	m.t.Helper()
	for _, row := range m.deferrals.messages {
		if n > 0 && row.entry == nil && !row.finished {
			n--
			ran = m.receiveRow(row, &delivery.Delivery{Alone: true}) || ran
		}
	}
	return ran
}

// witness sends a committed event again, if one is needed. Well reports whether the function
// works.
func (m *model) witness(well bool) bool {
	m.t.Helper()
	if !m.table.NeedsWitness() {
		return false
	}
	m.logf("witness %t", well)
	for _, s := range m.table.Witness(Request{Took: time.Millisecond, Answered: well, Committed: well}) {
		m.struck(s)
	}
	return true
}

// checkRows checks that all stored events are delivered at the end.
func (m *model) checkRows() {
	m.t.Helper()
	for _, s := range m.rows {
		for _, row := range s.messages {
			if !row.finished && !row.unheard && !m.ledger[row.id] {
				m.failf("row %d/%d of %q is not delivered at the end", s.number, row.sequence, row.subject)
			}
		}
	}
	if n, _ := m.table.CountStored(); n != 0 && m.stored != nil {
		m.failf("%d events are stored at the end: %v", n, fmt.Sprint(m.table.behind))
	}
}
