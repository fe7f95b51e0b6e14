package functionstest

import (
	"fmt"
	"strings"
	"testing"
)

// reported bounds how many events are reported, because one cause usually affects
// several.
const reported = 3

// finding is a problem of one event.
type finding struct {
	other record
	when  string
	cause string
}

// The causes, each with the remedy.
const (
	causeClock       = "the clock (time.Now, a deadline). Use functions.Time(e)"
	causeRandom      = "random numbers, or the first key of a map. Use functions.ID, Int64 or Rand; sort the keys"
	causeMap         = "the order of a map. Sort its keys: slices.Sorted(maps.Keys(m))"
	causeGoroutines  = "goroutines that end in any order. Let each write to a variable of its own, or compute without them"
	causeProcess     = "something that differs between processes: a seed, an address, a process id. Use functions.ID or Int64"
	causeZone        = "the time zone. Use times in UTC: t.UTC(), time.UTC instead of time.Local"
	causeLocale      = "the locale (LANG, LC_ALL)"
	causeEnvironment = "the environment%s. Pass settings that are the same in every cluster when the function is created"
	causeHost        = "the host name"
	causeState       = "state that is kept between calls or events: a package variable, a counter, a cache. An event's effects must depend on that event alone"
	causeShared      = "a variable that concurrent calls share. go test -race may show where"
)

// report reports the problems, if there are any.
func (c *checker) report(tb testing.TB, r *runs) {
	tb.Helper()
	found := 0
	for i := range c.events {
		f, ok := r.findDifference(i)
		ref := r.first[i][0]
		broken := ref.Broken
		if ok && f.other.Broken != "" {
			broken = f.other.Broken
		}
		if !ok && broken == "" {
			continue
		}
		if found++; found > reported {
			continue
		}
		if stack, known := c.stacks.Load(i); known && broken != "" {
			broken += "\n" + stack.(string)
		}
		if !ok {
			tb.Errorf("function %s fails on %s: %s", c.f.Name, c.describe(i), broken)
			continue
		}
		d := differenceOf(ref, f.other)
		first, second := d.texts()
		tb.Errorf("function %s computes different effects from %s\n"+
			"    where:        %s\n"+
			"    first:        %s\n"+
			"    then:         %s\n"+
			"    when:         %s\n"+
			"    likely cause: %s", c.f.Name, c.describe(i), d.where, first, second, f.when, f.cause)
	}
	if found > reported {
		tb.Errorf("the same applies to %d more of %d events", found-reported, len(c.events))
	}
}

// findDifference looks for the first record of event i that differs from the reference,
// and for the cause.
//
// Two processes without a known difference first show whether f is deterministic at all.
// If it is not, the clock is the cause if stopping it helps. If it is, the cause is
// whatever makes a difference.
func (r *runs) findDifference(i int) (finding, bool) {
	ref := r.first[i][0]
	if when, other, ok := r.nondeterministic(i); ok {
		return finding{other, when, r.whyNondeterministic(i, other)}, true
	}
	if f, ok := r.findPlace(i); ok {
		return f, true
	}
	for _, day := range r.days {
		// A counter differs here, too, but also in this process on any day.
		if other, ok := constant(day[i]); ok && !other.equal(ref) && !r.seenHere(i, other) {
			return finding{other, "on another day", causeClock}, true
		}
	}
	for _, run := range append(r.here, run{"in another process, in the opposite order of events", r.backwards}) {
		for k, other := range run.series[i] {
			if !other.equal(ref) {
				when := run.when
				if k > 0 {
					when = "called again, " + when
				}
				return finding{other, when, causeState}, true
			}
		}
	}
	for _, other := range r.first[i] {
		if !other.equal(ref) {
			return finding{other, "called again", causeState}, true
		}
	}
	for _, other := range r.concurrent[i] {
		if !other.equal(ref) {
			cause := causeShared
			if r.goroutines[i] > 0 {
				cause = causeGoroutines + "; or " + causeShared
			}
			return finding{other, "called concurrently", cause}, true
		}
	}
	return finding{}, false
}

// findPlace looks for a place that makes a difference.
func (r *runs) findPlace(i int) (finding, bool) {
	var found []finding
	causes := map[string]bool{}
	for _, p := range r.places {
		if other, ok := otherThan(r.first[i], p.series[i]); ok {
			found = append(found, finding{other, p.when, p.cause(r.variables)})
			causes[p.likely] = true
		}
	}
	if len(found) == 0 {
		return finding{}, false
	}
	if causes[causeZone] && causes[causeLocale] && causes[causeEnvironment] {
		// A function that reads all variables also reads those of zone and
		// locale.
		found[0].cause = fmt.Sprintf(causeEnvironment, "")
	}
	return found[0], true
}

// nondeterministic reports whether two identical processes differ.
func (r *runs) nondeterministic(i int) (when string, other record, ok bool) {
	if _, ok = otherThan(r.first[i], r.second[i]); !ok {
		return "", record{}, false
	}
	ref := r.first[i][0]
	for _, other := range r.first[i] {
		if !other.equal(ref) {
			return "called again", other, true
		}
	}
	other, _ = otherThan(r.first[i], r.second[i])
	return "in another process", other, true
}

func (r *runs) whyNondeterministic(i int, other record) string {
	ref := r.first[i][0]
	still := len(r.days) > 0
	moved := false
	for _, day := range r.days {
		one, ok := constant(day[i])
		still = still && ok
		moved = moved || ok && !r.seenHere(i, one)
	}
	switch {
	case still && moved:
		return causeClock
	case still:
		return causeProcess
	case permuted(ref, other) && r.goroutines[i] > 0:
		return causeGoroutines
	case permuted(ref, other):
		return causeMap
	case r.goroutines[i] > 0:
		return causeRandom + "; or " + causeGoroutines
	case len(r.days) == 0:
		return causeRandom + "; or " + causeClock
	}
	return causeRandom
}

// seenHere reports whether r was computed in this process outside of the bubble.
func (r *runs) seenHere(i int, one record) bool {
	for _, run := range r.here {
		for _, other := range run.series[i] {
			if other.equal(one) {
				return true
			}
		}
	}
	return false
}

// constant returns the value of all records in rs, if they are equal.
func constant(rs []record) (record, bool) {
	for _, other := range rs[1:] {
		if !other.equal(rs[0]) {
			return record{}, false
		}
	}
	return rs[0], true
}

// otherThan returns the first of others that differs from the record at the same
// index in refs.
func otherThan(refs, others []record) (record, bool) {
	for k, other := range others {
		if !other.equal(refs[k]) {
			return other, true
		}
	}
	return record{}, false
}

// cause returns a description of the difference of a place.
func (p place) cause(variables []string) string {
	if p.likely != causeEnvironment {
		return p.likely
	}
	names := ""
	if len(variables) > 0 {
		names = ", of which it reads " + strings.Join(variables, ", ")
	}
	return fmt.Sprintf(causeEnvironment, names)
}
