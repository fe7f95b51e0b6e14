package model

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
)

// Names that all events share.
const (
	Function = "model"
	Version  = "1"
	Source   = "/model"
)

// Verdict is the required outcome of an event.
type Verdict uint8

// The verdicts.
const (
	Commits   Verdict = iota
	Contends          // commits, or is refused because another event has its e-mail address
	Limited           // commits, or is refused because too little is left
	Refused           // its data are invalid
	Orphan            // the row that it references never exists
	Undefined         // its table does not exist
)

// Model generates events and predicts their results. It is safe for concurrent
// use.
type Model struct {
	seed   uint64
	events int
}

// New returns a model of that many events, at least one, with a seed.
func New(seed uint64, events int) *Model { return &Model{seed: seed, events: events} }

// ID returns the id of event i, from 0 to the number of events minus one.
func (m *Model) ID(i int) string { return fmt.Sprintf("e-%07d", i) }

// Event returns the event with that number.
func (m *Model) Event(i int) event.Event {
	e := event.New()
	e.SetSource(Source)
	e.SetID(m.ID(i))
	e.SetType("com.example.model")
	e.SetTime(epoch.Add(time.Duration(i) * time.Second))
	return e
}

// Epoch is the start of random times.
var epoch = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// builder collects the effects of one event.
type builder struct {
	*rand.Rand
	m       *Model
	i       int
	id      string
	style   uint64 // the spelling of equal values, which differs between clusters
	fx      functions.Effects
	verdict Verdict
}

// Effects returns the effects that the function computes from an event, and the
// required outcome. With another style the effects are the same, but their values
// are spelled differently. That must not count as a difference.
func (m *Model) Effects(i int, style uint64) (functions.Effects, Verdict) {
	b := &builder{Rand: rand.New(rand.NewPCG(m.seed, uint64(i))), m: m, i: i, id: m.ID(i), style: style}
	steps := []func(){
		b.count, b.countSpelled, b.newest, b.oldest, b.extremes, b.amounts, b.account, b.last, b.parts, b.typed, b.own, b.family, b.take, b.invite,
		b.audit, b.child, b.user, b.level, b.bad,
	}
	if b.isParent(i) {
		// A parent must be committed, so nothing in it may fail or wait.
		b.fx.Insert("parents", functions.Row{"id": parentID(i)})
		steps = steps[:14]
	}
	for range b.IntN(4) {
		steps[b.IntN(len(steps))]()
	}
	for range max(0, b.IntN(5)-2) {
		b.emit()
	}
	return b.fx, b.verdict
}

func (b *builder) isParent(i int) bool { return i%8 == 0 }

func parentID(i int) string { return fmt.Sprintf("p-%d", i) }

// number returns an integer in one of several types.
func (b *builder) number(n int) any {
	switch b.style % 3 {
	case 0:
		return n
	case 1:
		return int64(n)
	default:
		return int32(n)
	}
}

func (b *builder) hot(n int) string {
	if b.IntN(4) == 0 {
		return fmt.Sprintf("cold-%d", b.IntN(b.m.events))
	}
	return fmt.Sprintf("hot-%d", b.IntN(n))
}

func (b *builder) word() string {
	words := []string{"", "a", "b c", `"q"`, "(x,y)", `back\slash`, "ünï", "'; drop table own; --", "%s $1"}
	return words[b.IntN(len(words))]
}

func (b *builder) count() {
	amounts := functions.Row{"n": b.number(b.IntN(20) - 8)}
	if b.IntN(2) == 0 {
		amounts["m"] = b.number(b.IntN(5))
	}
	b.fx.Add("counters", functions.Row{"k": b.hot(5)}, amounts)
}

// countSpelled increments counters under keys with several spellings.
func (b *builder) countSpelled() {
	for range 1 + b.IntN(3) {
		k := b.IntN(4)
		amount := functions.Row{"n": b.number(1 + b.IntN(9))}
		switch b.IntN(3) {
		case 0:
			name := strings.Repeat("anna", k+1)
			if b.IntN(2) == 0 {
				name = strings.ToUpper(name[:1]) + name[1:]
			}
			b.fx.Add("counters_ci", functions.Row{"k": name}, amount)
		case 1:
			b.fx.Add("counters_pad", functions.Row{"k": fmt.Sprintf("k%d%s", k, strings.Repeat(" ", b.IntN(3)))}, amount)
		case 2:
			spelled := []string{"%d", "%d.0", "%d.000", "0%d"}[b.IntN(4)]
			zero := 0.0
			if b.IntN(2) == 0 {
				zero = -1 / inf()
			}
			b.fx.Add("counters_num", functions.Row{"k": fmt.Sprintf(spelled, k*100), "l": zero}, amount)
		}
	}
}

func inf() float64 {
	zero := 0.0
	return 1 / zero
}

func (b *builder) newest() {
	key := b.hot(5)
	version := b.number(b.IntN(b.m.events/4 + 4))
	if b.IntN(4) == 0 {
		b.fx.Delete("newest", functions.Row{"k": key}, functions.Version{Column: "version", Value: version})
		return
	}
	b.fx.Upsert("newest", functions.Row{"k": key, "version": version, "a": b.number(b.IntN(12)), "b": b.word()}, functions.NewestWins("version"))
}

// oldest writes rows whose oldest version is kept.
func (b *builder) oldest() {
	for range 1 + b.IntN(2) {
		b.fx.Upsert("oldest", functions.Row{
			"k": b.hot(5), "version": b.number(b.IntN(b.m.events/4 + 4)), "a": b.number(b.IntN(12)), "b": b.word(),
		}, functions.OldestWins("version"))
	}
}

// extremes writes greatest and least values, to columns of both kinds or of one.
func (b *builder) extremes() {
	key := b.hot(5)
	for range 1 + b.IntN(2) {
		a, c, rule := "high", "word", functions.Max()
		if b.IntN(2) == 0 {
			a, c, rule = "low", "least", functions.Min()
		}
		row := functions.Row{"k": key, a: b.number(b.IntN(b.m.events*8) - b.m.events)}
		if b.IntN(2) == 0 {
			row[c] = b.word()
		}
		if b.IntN(5) == 0 {
			row[a] = nil
		}
		b.fx.Upsert("extremes", row, rule)
	}
}

// amounts adds to columns of several types, in hundredths.
func (b *builder) amounts() {
	for range 1 + b.IntN(2) {
		row := functions.Row{}
		for _, name := range []string{"i", "n", "p", "m"} {
			switch {
			case b.IntN(2) == 0:
			case name == "i":
				row[name] = b.number(b.IntN(7) - 3)
			default:
				row[name] = hundredths(b.IntN(2000) - 900)
			}
		}
		if len(row) > 0 {
			b.fx.Add("amounts", functions.Row{"k": b.hot(3)}, row)
		}
	}
}

func hundredths(n int) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%02d", sign, n/100, n%100)
}

// account writes some columns of an existing row, which has others that are NOT NULL.
func (b *builder) account() {
	key := fmt.Sprintf("hot-%d", b.IntN(5))
	if b.IntN(2) == 0 {
		b.fx.Add("accounts", functions.Row{"k": key}, functions.Row{"n": b.number(b.IntN(9) - 4)})
		return
	}
	b.fx.Upsert("accounts", functions.Row{"k": key, "version": b.number(b.IntN(b.m.events/4 + 4)), "note": b.word()}, functions.NewestWins("version"))
}

// level subtracts from a row that must not become negative, or adds to it.
func (b *builder) level() {
	if b.verdict != Commits {
		return
	}
	b.verdict = Limited
	b.fx.Add("levels", functions.Row{"k": fmt.Sprintf("level-%d", b.IntN(4))}, functions.Row{"n": b.number(b.IntN(20) - 10)})
}

// last writes rows that the last event determines.
func (b *builder) last() {
	for range 1 + b.IntN(3) {
		key := b.number(b.IntN(20))
		row := functions.Row{"k": key, "a": b.number(b.i), "b": b.word()}
		switch b.IntN(4) {
		case 0:
			b.fx.Insert("last", row)
		case 1:
			b.fx.Delete("last", functions.Row{"k": key})
		case 2:
			b.fx.Upsert("last", row, functions.FirstWins())
		case 3:
			b.fx.Upsert("last", row, functions.Replace())
		}
	}
}

// parts writes some columns of a row.
func (b *builder) parts() {
	row := functions.Row{"k": b.hot(8)}
	for _, c := range []string{"a", "b", "c"} {
		if b.IntN(2) == 0 {
			row[c] = b.number(b.i*10 + b.IntN(10))
		}
	}
	if b.IntN(3) == 0 {
		b.fx.Insert("parts", row)
		return
	}
	b.fx.Upsert("parts", row, functions.Replace())
}

func (b *builder) child() {
	parent := parentID(b.IntN((b.m.events+7)/8) * 8)
	row := functions.Row{"id": fmt.Sprintf("%s-%d", b.id, len(b.fx.Writes)), "parent": parent, "note": b.word()}
	if b.IntN(2) == 0 {
		// The same event may insert the parent, before or after.
		b.fx.Insert("parents", functions.Row{"id": parent})
	}
	b.fx.Insert("children", row)
}

func (b *builder) user() {
	if b.verdict != Commits {
		return
	}
	b.verdict = Contends
	b.fx.Insert("users", functions.Row{"id": fmt.Sprintf("%s-%d", b.id, len(b.fx.Writes)), "email": email(b.IntN(b.m.events/4+1), b.i)})
}

// email returns one of a few addresses: several events want some of them.
func email(n, i int) string {
	if n%8 != 1 {
		return fmt.Sprintf("own-%d-%d@example.com", i, n)
	}
	return fmt.Sprintf("shared-%d@example.com", n)
}

func (b *builder) audit() {
	b.fx.Upsert("audited", functions.Row{"id": fmt.Sprintf("%s-%d", b.id, len(b.fx.Writes)), "n": b.number(b.IntN(1000))}, functions.FirstWins())
}

// bad adds a write that makes the event fail.
func (b *builder) bad() {
	if b.verdict != Commits || b.IntN(12) > 0 {
		return
	}
	id := fmt.Sprintf("%s-%d", b.id, len(b.fx.Writes))
	b.verdict = Refused
	switch b.IntN(8) {
	case 0: // a CHECK
		b.fx.Insert("audited", functions.Row{"id": id, "n": 1000})
	case 1: // a trigger's exception
		b.fx.Insert("audited", functions.Row{"id": id, "n": -1})
	case 2: // not a value of the type
		b.fx.Insert("typed", functions.Row{"id": id, "n": "many"})
	case 3: // not a value of the type, which only the server detects
		b.fx.Insert("typed", functions.Row{"id": id, "j": []byte(`{"a":`)})
	case 4: // the number is out of range
		b.fx.Insert("audited", functions.Row{"id": id, "n": int64(1) << 40})
	case 5: // NULL in a NOT NULL column
		b.fx.Insert("users", functions.Row{"id": id, "email": nil})
	case 6:
		b.verdict = Orphan
		b.fx.Insert("children", functions.Row{"id": id, "parent": "nobody"})
	case 7:
		b.verdict = Undefined
		b.fx.Insert("nowhere", functions.Row{"id": id})
	}
}

func (b *builder) emit() {
	o := functions.Output{Type: "com.example.output", Subject: b.id}
	switch b.IntN(3) {
	case 0:
	case 1:
		o.Data = map[string]any{"n": b.IntN(100), "word": b.word()}
	case 2:
		o.Data, o.DataContentType = []byte(b.word()), "text/plain"
	}
	b.fx.Emit(o)
}
