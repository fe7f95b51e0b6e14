package source

import (
	"context"
	"sync"
	"time"
)

// messageOverhead is about what a message takes in memory beyond its own bytes.
const messageOverhead = 2 << 10

// inFlight is the set of messages of one stream that this process has in its
// hands. It bounds how many they are and how much memory they take, tells one
// that comes a second time while the first is still at work, and says which ones
// need a heartbeat.
type inFlight struct {
	bytesLimit int
	freed      chan struct{} // holds a token after a message has gone

	mu      sync.Mutex
	held    map[uint64]*message
	leaving int // of them, about which the stream is told that they are done
	bytes   int

	acknowledged *sequenceSet // above the stream's floor; nil if no order is kept

	telling sync.RWMutex // held while the stream is told something
	stale   bool
}

func newInFlight(bytesLimit int, ordered bool) *inFlight {
	w := &inFlight{bytesLimit: bytesLimit, freed: make(chan struct{}, 1), held: map[uint64]*message{}}
	if ordered {
		w.acknowledged = &sequenceSet{}
	}
	return w
}

// add adds a message and reports whether it did: not if the message is held
// already, nor, in a window that keeps the order, if it is a copy of an acknowledged
// message, which copied reports.
func (w *inFlight) add(j *message) (taken, copied bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sequence := j.msg.Sequence()
	if _, there := w.held[sequence]; there {
		return false, false
	}
	if w.acknowledged.has(sequence) {
		return false, true
	}
	w.held[sequence] = j
	w.bytes += j.size
	return true, false
}

// forget drops the record of acknowledged messages below the stream's floor, of
// which no copy comes any more.
func (w *inFlight) forget(floor uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acknowledged.dropBelow(floor)
}

// has reports whether a message is held, and how many are.
func (w *inFlight) has(sequence uint64) (has bool, held int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, has = w.held[sequence]
	return has, len(w.held)
}

// startAck says that the stream is about to be told that a message is done.
func (w *inFlight) startAck(j *message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[j.msg.Sequence()] == j {
		j.leaving = true
		w.leaving++
	}
}

// remove removes a message.
func (w *inFlight) remove(j *message) {
	w.mu.Lock()
	sequence := j.msg.Sequence()
	if w.held[sequence] == j {
		delete(w.held, sequence)
		w.bytes -= j.size
		if j.leaving {
			w.leaving--
			w.acknowledged.add(sequence)
		}
	}
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// room waits until half the window is free, which has room for limit messages,
// and says how many and how many bytes of them fit; 0 if ctx ended first. While
// it has to wait it calls hurry now and then.
func (w *inFlight) room(ctx context.Context, limit func() int, hurry func()) (n, bytes int) {
	for {
		most := limit()
		if !w.crowded(most) {
			w.mu.Lock()
			n, bytes = most-len(w.held), w.bytesLimit-w.bytes
			w.mu.Unlock()
			// One half for the messages, the other for what each takes beyond.
			return min(n, bytes/2/messageOverhead), bytes / 2
		}
		hurry()
		again := time.NewTimer(hurryInterval)
		select {
		case <-w.freed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return 0, 0
		}
		again.Stop()
	}
}

// crowded reports whether less than half the window is free, which has room for
// limit messages. More are pulled only then: with one at a time each would cost a
// request.
func (w *inFlight) crowded(limit int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return limit-len(w.held) < limit/2 || w.bytesLimit-w.bytes < w.bytesLimit/2
}

// overdue are the messages that the stream has heard nothing about since then. It
// is told now.
func (w *inFlight) overdue(since, now time.Time) []*message {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []*message
	for _, j := range w.held {
		if !j.heartbeatAt.After(since) {
			j.heartbeatAt = now
			due = append(due, j)
		}
	}
	return due
}

// oldest gives how many messages are held, and the time since the arrival in the
// stream of the oldest, by the stream's clock and ours; 0 if none is.
func (w *inFlight) oldest(now time.Time) (messages int, age time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.held {
		age = max(age, now.Sub(j.msg.Arrived()))
	}
	return len(w.held), age
}

// abandon says that what these messages were is over: their stream is gone, or
// the place in it was put back. Another message may be there under the same
// sequence, which an acknowledgement of one of these would hit. It returns when
// the stream hears nothing more about them.
func (w *inFlight) abandon() {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.stale = true
}

// notify tells the stream what became of a message, unless the window is
// abandoned.
func (w *inFlight) notify(verb func() error) error {
	w.telling.RLock()
	defer w.telling.RUnlock()
	if w.stale {
		return nil
	}
	return verb()
}

func (w *inFlight) abandoned() bool {
	w.telling.RLock()
	defer w.telling.RUnlock()
	return w.stale
}
