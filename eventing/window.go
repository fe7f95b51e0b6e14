package eventing

import (
	"context"
	"sync"
)

// window is the set of messages of one stream that this process has in its
// hands. It bounds how many they are, tells one that comes a second time while
// the first is still at work, and says which ones need a heartbeat.
type window struct {
	limit int
	freed chan struct{} // holds a token after a message has gone

	mu    sync.Mutex
	held  map[uint64]Message
	stale bool
}

func newWindow(limit int) *window {
	return &window{limit: limit, freed: make(chan struct{}, 1), held: make(map[uint64]Message, limit)}
}

// take adds a message, and reports whether it is not there already.
func (w *window) take(m Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.held[m.Sequence()]; there {
		return false
	}
	w.held[m.Sequence()] = m
	return true
}

// drop removes a message.
func (w *window) drop(m Message) {
	w.mu.Lock()
	delete(w.held, m.Sequence())
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// room waits until at least atLeast messages fit and says how many do; 0 if ctx
// ended first.
func (w *window) room(ctx context.Context, atLeast int) int {
	for {
		w.mu.Lock()
		room := w.limit - len(w.held)
		w.mu.Unlock()
		if room >= atLeast {
			return room
		}
		select {
		case <-w.freed:
		case <-ctx.Done():
			return 0
		}
	}
}

// all are the messages that are held now.
func (w *window) all() []Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Message, 0, len(w.held))
	for _, m := range w.held {
		all = append(all, m)
	}
	return all
}

// abandon says that the stream of these messages is gone. Another one of its
// name may be there, with other messages under the same sequences, which an
// acknowledgement of these would hit.
func (w *window) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = true
}

func (w *window) abandoned() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stale
}
