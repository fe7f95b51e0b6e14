package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/snapshot"
)

// letter identifies a dead letter, of any cluster.
type letter struct{ function, source, id string }

// memory is what else the database has about events, besides the ledger.
type memory struct {
	floors   map[snapshot.Stream]uint64
	horizons map[snapshot.Stream]uint64
	letters  map[letter]bool // whether one of them has no reason
	names    map[identity][]letter
	met      map[letter]bool
	blocked  map[identity]bool // events that wait behind dead letters
	deferred map[identity]bool // events that wait for a change of the deployment
}

func (m *memory) load(ctx context.Context, database *snapshot.Snapshot) error {
	var err error
	if m.floors, err = database.Floors(ctx); err != nil {
		return err
	}
	if m.horizons, err = database.Horizons(ctx); err != nil {
		return err
	}
	dead, err := database.DeadLetters(ctx)
	if err != nil {
		return err
	}
	blocked, err := database.BlockedEvents(ctx)
	if err != nil {
		return err
	}
	m.blocked = map[identity]bool{}
	for _, b := range blocked {
		m.blocked[identity{b.Source, b.ID}] = true
	}
	deferred, err := database.DeferredEvents(ctx)
	if err != nil {
		return err
	}
	m.deferred = map[identity]bool{}
	for _, d := range deferred {
		m.deferred[identity{d.Source, d.ID}] = true
	}
	m.letters, m.met, m.names = map[letter]bool{}, map[letter]bool{}, map[identity][]letter{}
	for _, d := range dead {
		l := letter{function: d.Function, source: d.Source, id: d.ID}
		m.letters[l] = d.WithoutReason
		m.names[identity{l.source, l.id}] = append(m.names[identity{l.source, l.id}], l)
	}
	return nil
}

// floor returns the sequence below which some cluster has acknowledged every event. A
// source may deliver for several functions of one image, and saves its checkpoints
// under the name of one of them.
func (m *memory) floor(it *item) uint64 {
	if floor, ok := m.floors[it.place()]; ok {
		return floor
	}
	floor := uint64(0)
	for p, f := range m.floors {
		if p.Stream == it.stream && p.Epoch == it.epoch {
			floor = max(floor, f)
		}
	}
	return floor
}

// isDead reports whether an event has a dead letter: under its function's name, or
// under that of another function of the same image, for which the source delivers.
func (m *memory) isDead(it *item) bool {
	all := m.names[identity{it.event.Source(), it.event.ID()}]
	for _, l := range all {
		m.met[l] = true
		if l.function == it.function.Name {
			return true
		}
	}
	return len(all) > 0
}

// meet records that the event of dead letters exists, although no function has its
// type.
func (m *memory) meet(e event.Event) {
	for _, l := range m.names[identity{e.Source(), e.ID()}] {
		m.met[l] = true
	}
}

// compute runs the function over the event, like the clusters did.
func (it *item) compute(ctx context.Context) {
	defer func() {
		if r := recover(); r != nil {
			it.broken = fmt.Errorf("panic: %v", r)
		}
	}()
	it.effects, it.broken = it.function.Handle(ctx, it.event)
	if it.broken != nil {
		return
	}
	form, encoded, err := it.effects.AppendCanonical(nil)
	if err != nil {
		it.broken = err
		return
	}
	sum := sha256.Sum256(form)
	it.digest, it.encoded = [16]byte(sum[:16]), encoded
}

// place returns the function and the stream of an event.
func (it *item) place() snapshot.Stream {
	return snapshot.Stream{Function: it.function.Name, Stream: it.stream, Epoch: it.epoch}
}

// judge compares an event with its row of the ledger, and records the consequences for
// rows and outputs.
func (a *audit) judge(ctx context.Context, it *item, row snapshot.Committed, handled bool) error {
	a.report.Events++
	dead := a.memory.isDead(it)
	switch {
	case handled:
		a.report.Handled++
		return a.compareHandled(ctx, it, row)
	case dead:
		a.report.Dead++
	case a.memory.blocked[identity{it.event.Source(), it.event.ID()}]:
		a.report.Blocked++
	case a.memory.deferred[identity{it.event.Source(), it.event.ID()}]:
		a.report.Deferred++
	case it.sequence < a.memory.horizons[it.place()]:
		a.report.Forgotten++
		if it.broken == nil {
			return a.expect(ctx, it)
		}
	case it.sequence >= a.memory.floor(it):
		a.report.Pending++
	default:
		a.report.add(a.Limit, it.finding(Missing, "it is acknowledged, but neither in the ledger nor a dead letter"))
		a.lost = append(a.lost, lostEvent{function: it.function.Name, event: it.event})
	}
	return nil
}

func (a *audit) compareHandled(ctx context.Context, it *item, row snapshot.Committed) error {
	var reject *functions.RejectError
	other := row.Version != it.function.Version
	if other {
		a.report.OtherVersion++
	}
	switch {
	case it.broken != nil && other:
		a.expected.holes = true
	case errors.As(it.broken, &reject):
		a.report.add(a.Limit, it.finding(Different, "the function rejects it, but it was committed: "+it.broken.Error()))
	case it.broken != nil:
		a.report.add(a.Limit, it.finding(Different, "the function breaks on it, but it was committed: "+it.broken.Error()))
	case len(row.Digest) == 0:
		a.report.NoDigest++
	case !other && string(row.Digest) != string(it.digest[:]):
		a.report.add(a.Limit, it.finding(Different, fmt.Sprintf("the function computes digest %x, but the ledger has %x", it.digest, row.Digest)))
	}
	if it.broken != nil {
		return nil //nolint:nilerr // that has been told
	}
	if other && string(row.Digest) != string(it.digest[:]) {
		a.expected.holes = true // the writes of another version are unknown
		return nil
	}
	return a.expect(ctx, it)
}

// expect adds the rows and outputs of an event to the expected ones.
func (a *audit) expect(ctx context.Context, it *item) error {
	for i := range it.effects.Writes {
		if err := a.write(ctx, &it.effects.Writes[i]); err != nil {
			return err
		}
	}
	for i := range it.encoded {
		e, err := it.encoded[i].Event(it.function.Name, it.event, i)
		if err != nil {
			return err
		}
		a.outputs.expect(it, e)
	}
	return nil
}

// lookForLetters reports dead letters that have no reason, or whose event is not in the
// stream.
func (a *audit) lookForLetters() {
	for l, silent := range a.memory.letters {
		finding := Finding{Thing: Letter, Function: l.function, Source: l.source, ID: l.id}
		switch {
		case a.memory.met[l] && silent:
			finding.Kind, finding.Detail = Different, "it has no reason"
			a.report.add(a.Limit, finding)
		case a.memory.met[l] || !a.report.Complete || !a.knows(l.function):
		default:
			finding.Kind, finding.Detail = Extra, "its event is not in the stream"
			a.report.add(a.Limit, finding)
		}
	}
}

func (a *audit) knows(function string) bool {
	for _, f := range a.Functions {
		if f.Name == function {
			return true
		}
	}
	return false
}

// lookForExtraEvents reports rows of the ledger whose event is not in the stream.
func (a *audit) lookForExtraEvents(ctx context.Context) error {
	if !a.report.Complete {
		a.report.unchecked("whether the ledger has more than the stream: it was not read from its beginning to its end", 1)
		return nil
	}
	names := make([]string, len(a.Functions))
	for i, f := range a.Functions {
		names[i] = f.Name
	}
	return a.database.EachCommitted(ctx, names, func(key ledger.Key, function, at string) {
		if a.seen[key] {
			return
		}
		a.report.add(a.Limit, Finding{
			Kind: Extra, Thing: Event, Function: function,
			Detail: fmt.Sprintf("the ledger has key %s, committed at %s, but the stream has no event with it", key, at),
		})
	})
}

func (it *item) finding(kind Kind, detail string) Finding {
	return Finding{
		Kind: kind, Thing: Event, Function: it.function.Name, Source: it.event.Source(), ID: it.event.ID(),
		Stream: it.stream, Sequence: it.sequence, Detail: detail,
	}
}
