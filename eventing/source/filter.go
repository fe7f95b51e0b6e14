package source

import (
	"errors"
	"fmt"
	"strings"
)

// filter says which types of events are delivered. Its zero value lets all through.
type filter struct {
	types    map[string]bool
	prefixes []string
	anyType  bool // that was asked for
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
		case open && prefix == "":
			f.anyType = true
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

// all reports whether no types were asked for, or any.
func (f filter) all() bool { return f.anyType || f.types == nil && f.prefixes == nil }

// passes reports whether events of a type are delivered.
func (f filter) passes(eventType string) bool {
	if f.types[eventType] || f.anyType || f.all() {
		return true
	}
	for _, p := range f.prefixes {
		if strings.HasPrefix(eventType, p) {
			return true
		}
	}
	return false
}
