package inflight

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// storedWorld is a stream with subjects, the database that stores events behind dead
// letters, and the table of the running process.
type storedWorld struct {
	t      *testing.T
	random *rand.Rand
	now    time.Time

	messages []*modelMessage    // of the stream
	done     map[EventID]bool   // committed or dead
	letters  map[EventID]string // without a verdict, with their subjects
	rows     []*modelMessage    // of the database; the sequence is the position
	position uint64             // of the last row
	settled  map[uint64]bool    // rows to delete

	table    *Table
	stream   *Partition
	read     int
	requests [][]*Entry
	storing  [][]*Entry
	calm     bool // no operation fails any more
}

// start starts a process; the previous one has ended.
func (w *storedWorld) start() {
	w.table = New(Config{
		Now: func() time.Time { return w.now }, InFlight: 8, MaxBytes: 1 << 20, Ordered: true, MaxBatch: func() (int, int) { return 4, 1 << 20 },
	})
	w.stream = w.table.AddPartition()
	w.read, w.requests, w.storing, w.settled = 0, nil, nil, map[uint64]bool{}
	w.table.SetHedge(eventing.Hedge{})
	counts, bytes := map[string]int{}, 0
	for _, row := range w.rows {
		counts[row.subject]++
		bytes += row.size
	}
	w.table.SetStored(counts, bytes)
	var blocked []ledger.BlockedEvent
	for id, subject := range w.letters {
		blocked = append(blocked, ledger.BlockedEvent{Subject: subject, Source: id.Source, ID: id.ID})
	}
	w.table.Block(blocked...)
	w.stream.Complete()
}

func (w *storedWorld) receive(n int) {
	for ; n > 0 && w.read < len(w.messages); w.read++ {
		if m := w.messages[w.read]; !m.acked {
			w.stream.Receive(m, &delivery.Delivery{}, m.id, m.subject)
			n--
		}
	}
}

func (w *storedWorld) acknowledge(e *Entry) {
	m, _ := e.Message.(*modelMessage)
	if e.Partition() == w.stream {
		m.acked = true
	} else {
		w.settled[m.sequence] = true
	}
}

// complete answers a request: its events are committed, dead, or retried.
func (w *storedWorld) complete() {
	if len(w.requests) == 0 {
		return
	}
	i := w.random.IntN(len(w.requests))
	entries := w.requests[i]
	w.requests = append(w.requests[:i], w.requests[i+1:]...)
	r := Request{Entries: entries, Answered: true, Together: entries[0].GoesTogether()}
	for _, e := range entries {
		next := Finish
		switch {
		case w.done[e.ID]: // it is in the ledger, or the dead letter exists
		case !w.calm && w.random.IntN(10) == 0:
			next = Retry
		case !w.calm && w.random.IntN(10) == 0:
			w.letters[e.ID] = e.Subject
			w.done[e.ID] = true
			w.table.Block(ledger.BlockedEvent{Subject: e.Subject, Source: e.ID.Source, ID: e.ID.ID})
		default:
			w.commit(e)
		}
		r.Next, r.After = append(r.Next, next), append(r.After, time.Millisecond)
	}
	w.table.Complete(r)
	for i, e := range entries {
		if r.Next[i] == Finish {
			w.acknowledge(e)
		}
	}
}

// commit fails the test if e has overtaken an event of its subject.
func (w *storedWorld) commit(e *Entry) {
	w.done[e.ID] = true
	for id, subject := range w.letters {
		if subject == e.Subject {
			w.t.Fatalf("%s of %s is committed while %s waits for a verdict", e.ID.ID, e.Subject, id.ID)
		}
	}
	for _, m := range w.messages {
		if m.id == e.ID {
			return
		}
		if m.subject == e.Subject && !w.done[m.id] {
			w.t.Fatalf("%s of %s is committed before %s", e.ID.ID, e.Subject, m.id.ID)
		}
	}
}

// stored ends a transaction.
func (w *storedWorld) stored() {
	if len(w.storing) == 0 {
		return
	}
	entries := w.storing[0]
	w.storing = w.storing[1:]
	if !w.calm && w.random.IntN(4) == 0 {
		w.table.Stored(entries, nil, nil)
		return
	}
	now, sizes := make([]bool, len(entries)), make([]int, len(entries))
	for i, e := range entries {
		m, _ := e.Message.(*modelMessage)
		now[i], sizes[i] = true, m.size
		for _, row := range w.rows {
			now[i] = now[i] && row.id != e.ID
		}
		if now[i] {
			w.position++
			w.rows = append(w.rows, &modelMessage{sequence: w.position, size: m.size, subject: m.subject, id: m.id, arrived: m.arrived})
		}
	}
	for _, e := range w.table.Stored(entries, now, sizes) {
		if w.random.IntN(4) > 0 { // otherwise the acknowledgement is lost
			w.acknowledge(e)
		}
	}
}

// load loads stored events of subjects that are not blocked.
func (w *storedWorld) load() {
	unblocked := w.table.Unblocked(2)
	found := map[string]int{}
	for _, row := range w.rows {
		if _, ok := unblocked[row.subject]; ok && found[row.subject] < 3 {
			found[row.subject]++
			w.table.StoredPartition().Receive(row, &delivery.Delivery{}, row.id, row.subject)
		}
	}
	for subject, n := range unblocked {
		if found[subject] == 0 {
			w.table.NoneStored(subject, n)
		}
	}
}

func (w *storedWorld) deleteSettled() {
	var rows []*modelMessage
	for _, row := range w.rows {
		if !w.settled[row.sequence] {
			rows = append(rows, row)
		}
	}
	w.rows, w.settled = rows, map[uint64]bool{}
}

func (w *storedWorld) unblock() {
	for id, subject := range w.letters {
		delete(w.letters, id)
		w.table.Unblock([]ledger.BlockedEvent{{Subject: subject, Source: id.Source, ID: id.ID}})
		return
	}
}

func (w *storedWorld) step() {
	switch w.random.IntN(12) {
	case 0, 1:
		w.receive(1 + w.random.IntN(6))
	case 2, 3:
		if entries, _ := w.table.NextRequest(time.Hour); entries != nil {
			w.requests = append(w.requests, entries)
		}
	case 4, 5:
		w.complete()
	case 6:
		if entries := w.table.NextToStore(1 + w.random.IntN(5)); entries != nil {
			w.storing = append(w.storing, entries)
			for _, e := range entries {
				if _, dead := w.letters[e.ID]; dead {
					w.t.Fatalf("%s of %s is stored behind itself", e.ID.ID, e.Subject)
				}
			}
		}
	case 7:
		w.stored()
	case 8:
		w.load()
	case 9:
		w.deleteSettled()
	case 10:
		if w.random.IntN(3) == 0 {
			w.unblock()
		}
		w.now = w.now.Add(20 * time.Millisecond)
	case 11:
		if w.random.IntN(12) == 0 {
			for len(w.requests) > 0 { // the process waits for them
				w.complete()
			}
			w.start()
		}
	}
}

func TestStoredEventsAreDeliveredInTheOrderOfTheirSubject(t *testing.T) {
	isModel(t)
	t.Parallel()

	stored := 0
	for seed := range uint64(400) {
		w := &storedWorld{t: t, random: rand.New(rand.NewPCG(seed, 5)), now: modelStart, done: map[EventID]bool{}, letters: map[EventID]string{}}
		for i := range 60 {
			w.messages = append(w.messages, &modelMessage{
				sequence: uint64(i + 1), arrived: w.now, size: 10 + i, subject: []string{"a", "a", "a", "b", "c"}[w.random.IntN(5)], id: EventID{ID: fmt.Sprint(i + 1)},
			})
		}
		w.start()
		for range 400 {
			w.step()
		}
		stored += int(w.position)
		w.calm = true
		for range 3000 {
			w.step()
		}
		for _, m := range w.messages {
			if !w.done[m.id] || !m.acked {
				t.Fatalf("seed %d: %s of %s: settled %t, acknowledged %t at the end; %v, behind %v", seed, m.id.ID, m.subject, w.done[m.id], m.acked, w.table.Counts(), w.table.behind)
			}
		}
		w.deleteSettled()
		if n, _ := w.table.CountStored(); n != 0 || len(w.rows) != 0 || w.table.storedBytes != 0 {
			t.Fatalf("seed %d: %d events of %d bytes are counted and %d stored at the end", seed, n, w.table.storedBytes, len(w.rows))
		}
	}
	if stored == 0 {
		t.Error("no event was stored")
	}
}

// The stream redelivers events that a database has lost.
func TestASubjectGoesOnIfTheDatabaseHasLostWhatWasStored(t *testing.T) {
	t.Parallel()

	b := newBench(t, Config{Ordered: true})
	b.SetStored(map[string]int{"a": 3}, 300)
	b.receive(1, "a", 10, b.now)
	if sequences, _, _ := b.request(); sequences != nil {
		t.Fatalf("%v is delivered before what is stored", sequences)
	}
	b.NoneStored("a", 2) // of a lookup before another event was stored
	if sequences, _, _ := b.request(); sequences != nil {
		t.Fatalf("%v is delivered before what is stored", sequences)
	}
	b.NoneStored("a", b.Unblocked(1)["a"])
	if sequences, _, _ := b.request(); len(sequences) != 1 {
		t.Fatalf("%v is delivered, want the new one", sequences)
	}
}
