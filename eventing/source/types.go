package source

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/delivery"
	"github.com/tandem-fn/tandem/eventing/internal/backoff"
	"github.com/tandem-fn/tandem/eventing/outcome"
	"github.com/tandem-fn/tandem/eventing/source/internal/inflight"
)

const (
	// typesFor is how long the source relies on the types that the function has stated.
	// After that, a message of another type is delivered; the function's answer states its
	// types again, and a new version may accept more. With a shorter time, events of other
	// functions would keep a function from scaling to zero.
	typesFor = 10 * time.Minute

	// typesInterval is the time between checks of the types.
	typesInterval = time.Second
)

// typesCheck detects a filter that passes nothing, and types that the function does not know.
type typesCheck struct {
	mu       sync.Mutex
	names    bool   // the names of functions are wanted
	passed   bool   // a message of a wanted type arrived
	filtered uint64 // messages of other types, until a message of a wanted one arrived
	other    string // the type of the latest one
	reported string // the latest report
}

// pass reports whether a message of a type is wanted, and records the result.
func (s *Source) pass(eventType string) bool {
	passes := s.filter.passes(eventType) && !s.isOthers(eventType)
	t := &s.typesCheck
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case passes:
		t.passed = true
	case !t.passed:
		t.filtered++
		t.other = eventType
	}
	return passes
}

// isOthers reports whether no types are configured, and the function has stated recently
// that it does not know this one.
func (s *Source) isOthers(eventType string) bool {
	if !s.filter.all() || s.filter.anyType {
		return false
	}
	types := s.sender.Types()
	return types != nil && !types[eventType] && s.sender.TypesAge() < typesFor
}

// isRejectedAsOthers reports whether the function rejected an event because it does not
// know its type, and no types are configured.
func (s *Source) isRejectedAsOthers(e *inflight.Entry, step delivery.Step) bool {
	return !step.Settled && step.Outcome.Kind == outcome.Rejected && e.Delivery.Unreadable == nil && s.isOthers(e.Delivery.Event.Type())
}

// unknownTypes returns those of the wanted types that the function does not know.
func (s *Source) unknownTypes() (unknown []string, known map[string]bool) {
	known = s.sender.Types()
	if known == nil {
		return nil, nil
	}
	for t := range s.filter.types {
		if !known[t] {
			unknown = append(unknown, t)
		}
	}
	for _, prefix := range s.filter.prefixes {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(t string) bool { return strings.HasPrefix(t, prefix) }) {
			unknown = append(unknown, prefix+"*")
		}
	}
	slices.Sort(unknown)
	return unknown, known
}

// typesProblem returns the error in the wanted types; nil if none is known.
func (s *Source) typesProblem() error {
	if s.filter.all() {
		return nil
	}
	unknown, known := s.unknownTypes()
	if len(unknown) > 0 {
		return fmt.Errorf("the function does not know event type %s of TANDEM_TYPES; its types are: %s",
			strings.Join(unknown, ", "), strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	if known != nil {
		return nil
	}
	return s.typesCheck.nothingPassed()
}

// nothingPassed returns an error if messages arrived, and none was of a wanted type.
func (t *typesCheck) nothingPassed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passed || t.filtered == 0 {
		return nil
	}
	return fmt.Errorf("%d messages of other types, for example %q, were acknowledged without a delivery, and none was of a type in TANDEM_TYPES", t.filtered, t.other)
}

// wantNames requests the function's types, and with them the names under which the ledger has
// their events.
func (t *typesCheck) wantNames() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.names = true
}

func (t *typesCheck) wantsNames() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names
}

// followTypes reports errors in the wanted types, until ctx ends. If the filter has passed
// nothing, or the ledger does not have an event, it asks the function for its types, because
// no answer to a delivery would state them.
func (s *Source) followTypes(ctx context.Context) {
	ticker := time.NewTicker(typesInterval)
	defer ticker.Stop()
	wait := backoff.Backoff{Base: typesInterval, Limit: time.Minute}
	asked := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var nothing error
		if !s.filter.all() {
			nothing = s.typesCheck.nothingPassed()
		}
		if (nothing != nil || s.typesCheck.wantsNames()) && s.sender.Types() == nil && !asked {
			if asked = s.sender.AskTypes(ctx) == nil; !asked && !backoff.Sleep(ctx, &wait) {
				return
			}
		}
		switch problem := s.typesProblem(); {
		case problem != nil:
			s.reportTypes(ctx, slog.LevelError, problem)
		default:
			s.reportTypes(ctx, slog.LevelWarn, nothing)
		}
	}
}

// reportTypes logs an error in the wanted types, once.
func (s *Source) reportTypes(ctx context.Context, level slog.Level, err error) {
	what := ""
	if err != nil {
		what = strings.TrimLeft(err.Error(), "0123456789")
	}
	if what != "" && what != s.typesCheck.reported {
		s.cfg.Logger.LogAttrs(ctx, level, "TANDEM_TYPES may be wrong; events of types that it lacks are acknowledged without a delivery: correct it", slog.Any("err", err))
	}
	s.typesCheck.reported = what
}
