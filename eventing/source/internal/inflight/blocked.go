package inflight

import (
	"slices"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Block adds subjects with a dead letter, and the dead letters: later events of these
// subjects wait until [Table.Unblock]. Before the first call no message with a subject
// runs.
func (t *Table) Block(events ...ledger.BlockedEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.blocked != nil
	if !known {
		t.blocked = map[string]map[EventID]struct{}{}
	}
	for _, e := range events {
		if t.blocked[e.Subject] == nil {
			t.blocked[e.Subject] = map[EventID]struct{}{}
		}
		t.blocked[e.Subject][EventID{Source: e.Source, ID: e.ID}] = struct{}{}
		for _, p := range t.partitions {
			if l := p.lanes[e.Subject]; l != nil {
				t.considerStoring(p, l)
			}
		}
	}
	if !known {
		t.advanceAll()
		notify(t.toDeliver)
	}
}

// Unblock lets events run that waited behind these dead letters.
func (t *Table) Unblock(events []ledger.BlockedEvent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		delete(t.blocked[e.Subject], EventID{Source: e.Source, ID: e.ID})
		if len(t.blocked[e.Subject]) > 0 {
			continue
		}
		delete(t.blocked, e.Subject)
		for _, p := range t.partitions {
			if l := p.lanes[e.Subject]; l != nil {
				t.advance(p, l)
			}
		}
		if t.behind[e.Subject] > 0 {
			notify(t.toDeliver)
		}
	}
}

// CountBlocking returns the number of events that block their subjects.
func (t *Table) CountBlocking() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, events := range t.blocked {
		n += len(events)
	}
	return n
}

// Blocking returns up to n of the events that block their subjects, different ones on
// each call.
func (t *Table) Blocking(n int) []ledger.BlockedEvent {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.blockedTurn) == 0 {
		for subject, events := range t.blocked {
			for e := range events {
				t.blockedTurn = append(t.blockedTurn, ledger.BlockedEvent{Subject: subject, Source: e.Source, ID: e.ID})
			}
		}
	}
	n = min(n, len(t.blockedTurn))
	list := slices.Clone(t.blockedTurn[:n])
	t.blockedTurn = t.blockedTurn[n:]
	return list
}
