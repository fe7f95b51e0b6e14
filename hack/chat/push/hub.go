package push

import (
	"fmt"
	"sync"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// repeats is how many events back a repeat is known. What a dead process left is
// published again within a minute.
const repeats = 1 << 16

// hub gives each event of a room to everybody who looks at it, once.
type hub struct {
	history int

	mu       sync.Mutex
	seen     ring[identity]
	known    map[identity]bool
	past     ring[pushed]
	watchers map[*watcher]bool
}

type identity struct{ source, id string }

// pushed is an event as browsers get it.
type pushed struct {
	room string
	text []byte
}

// watcher is a browser that looks at a room.
type watcher struct {
	room  string
	queue chan []byte // closed when it was too slow
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

// publish gives an event to who looks at the room that is its subject. A repeat is
// left out.
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

// give never waits: who is too slow goes.
func (h *hub) give(w *watcher, text []byte) {
	select {
	case w.queue <- text:
	default:
		close(w.queue)
		delete(h.watchers, w)
	}
}

// watch gives what happened in a room lately, and then all that happens there.
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

// answer gives text to one watcher only.
func (h *hub) answer(w *watcher, text []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[w] {
		h.give(w, text)
	}
}

// leave ends what watch began.
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

// add gives the value that had to go.
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

// all are the values, the oldest first.
func (r *ring[T]) all() func(yield func(T) bool) {
	return func(yield func(T) bool) {
		for i := range r.items {
			if !yield(r.items[(r.next+i)%len(r.items)]) {
				return
			}
		}
	}
}
