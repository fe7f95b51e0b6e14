package source

import (
	"errors"
	"fmt"
	"strings"
)

// filter selects the types of events that are delivered. The zero value passes all.
type filter struct {
	types    map[string]bool
	prefixes []string
	anyType  bool // '*' was configured
}

// newFilter parses a list of types; one that ends with '*' is a prefix.
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

// CheckTypes returns the error in a list of [Config.Types]; nil if there is none.
func CheckTypes(list []string) error {
	_, err := newFilter(list)
	return err
}

// all reports whether no types are configured, or any type is.
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
