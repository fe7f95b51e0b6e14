package push

import (
	"fmt"
	"sync"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// repeats is the number of recent events for which duplicates are recognised.
// The outputs of a dead process are published again within a minute.
const repeats = 1 << 16

// hub delivers each event of a room to every browser in it, once.
type hub struct {
	history int

	mu       sync.Mutex
	seen     ring[identity]
	known    map[identity]bool
	past     ring[pushed]
	watchers map[*watcher]bool
}

type identity struct{ source, id string }

// pushed is an event in the form for browsers.
type pushed struct {
	room string
	text []byte
}

// watcher is a browser in a room.
type watcher struct {
	room  string
	queue chan []byte // closed if it was too slow
}

func newHub(history int) *hub {
	return &hub{
		history:  history,
		seen:     ring[identity]{limit: repeats},
		known:    map[identity]bool{},
		past:     ring[pushed]{limit: history},
		watchers: map[*watcher]bool{},
	}
}

// publish delivers an event to the watchers of the room that is its subject. It
// ignores duplicates.
func (h *hub) publish(e event.Event) error {
	text, err := cloudevent.AppendJSON(nil, e)
	if err != nil {
		return fmt.Errorf("encode event %s of %s: %w", e.ID(), e.Source(), err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	which := identity{e.Source(), e.ID()}
	if h.known[which] {
		return nil
	}
	h.known[which] = true
	if old, full := h.seen.add(which); full {
		delete(h.known, old)
	}
	p := pushed{room: e.Subject(), text: text}
	h.past.add(p)
	for w := range h.watchers {
		if w.room == p.room {
			h.give(w, text)
		}
	}
	return nil
}

// give never blocks: a watcher that is too slow is removed.
func (h *hub) give(w *watcher, text []byte) {
	select {
	case w.queue <- text:
	default:
		close(w.queue)
		delete(h.watchers, w)
	}
}

// watch returns a watcher that receives the recent events of a room, and then all
// new ones.
func (h *hub) watch(room string, queue int) *watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	var past [][]byte
	for p := range h.past.all() {
		if p.room == room {
			past = append(past, p.text)
		}
	}
	w := &watcher{room: room, queue: make(chan []byte, len(past)+queue)}
	for _, text := range past {
		w.queue <- text
	}
	h.watchers[w] = true
	return w
}

// answer sends text to one watcher only.
func (h *hub) answer(w *watcher, text []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[w] {
		h.give(w, text)
	}
}

// leave removes a watcher.
func (h *hub) leave(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// ring keeps the last values.
type ring[T any] struct {
	limit int
	items []T
	next  int // the oldest, once it is full
}

// add adds a value and returns the one that it replaced.
func (r *ring[T]) add(v T) (old T, full bool) {
	if len(r.items) < r.limit {
		r.items = append(r.items, v)
		return old, false
	}
	old = r.items[r.next]
	r.items[r.next] = v
	r.next = (r.next + 1) % r.limit
	return old, true
}

// all returns the values, oldest first.
func (r *ring[T]) all() func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for i := range r.items {
			if !yield(r.items[(r.next+i)%len(r.items)]) {
				return
			}
		}
	}
}
