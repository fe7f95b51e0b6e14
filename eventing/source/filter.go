package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tandem-fn/tandem/eventing"
)

// filter says which types of events are delivered. Its zero value lets all through.
type filter struct {
	types    map[string]bool
	prefixes []string
}

// newFilter reads a list of types; one that ends with '*' is the beginning of
// some.
func newFilter(list []string) (f filter, err error) {
	for _, t := range list {
		prefix, open := strings.CutSuffix(t, "*")
		switch {
		case t == "":
			return filter{}, errors.New("an event type is empty")
		case strings.Contains(prefix, "*"):
			return filter{}, fmt.Errorf("event type %q: '*' may only be at its end", t)
		case open:
			f.prefixes = append(f.prefixes, prefix)
		default:
			if f.types == nil {
				f.types = map[string]bool{}
			}
			f.types[t] = true
		}
	}
	return f, nil
}

// CheckTypes says what is wrong with a list of [Config.Types].
func CheckTypes(list []string) error {
	_, err := newFilter(list)
	return err
}

func (f filter) all() bool { return f.types == nil && f.prefixes == nil }

// passes reports whether events of a type are delivered.
func (f filter) passes(eventType string) bool {
	if f.types[eventType] || f.all() {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(eventType, p) {
			return true
		}
	}
	return false
}

// filtered reports whether the function has nothing to do with a message, which is
// acknowledged then, and that is all: it takes no room, no question to the ledger
// and no row in it.
func (in *consumer) filtered(ctx context.Context, m eventing.Message) bool {
	if in.source.filter.all() || in.source.filter.passes(m.Event().Type()) {
		return false
	}
	in.source.cfg.Metrics.filteredOne(ctx)
	if err := m.Ack(); err != nil {
		in.source.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "could not notify the stream; the message will be redelivered",
			slog.Uint64("sequence", m.Sequence()), slog.Any("err", err))
	}
	return true
}
