package model

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// own writes some rows that no other event writes, many times.
func (b *builder) own() {
	for range 1 + b.IntN(8) {
		b.private("own", b.IntN(3), true)
	}
}

// private writes a row of the event's own.
func (b *builder) private(table string, slot int, mayDelete bool) {
	key := functions.Row{"event": b.id, "slot": b.number(slot)}
	row := functions.Row{"event": b.id, "slot": b.number(slot)}
	if b.IntN(2) == 0 {
		row["a"] = b.number(b.IntN(5))
	}
	if b.IntN(2) == 0 {
		row["b"] = b.word()
	}
	if b.IntN(8) == 0 {
		row["a"] = nil
	}
	version := b.number(b.IntN(4))
	kinds := 7
	if !mayDelete {
		kinds = 6
	}
	switch b.IntN(kinds) {
	case 0:
		b.fx.Insert(table, row)
	case 1:
		b.fx.Upsert(table, row, functions.FirstWins())
	case 2:
		row["deleted"] = b.IntN(2) == 0
		b.fx.Upsert(table, row, functions.Replace())
	case 3:
		row["version"] = version
		if b.IntN(5) == 0 {
			row["deleted"] = b.IntN(2) == 0
		}
		b.fx.Upsert(table, row, functions.NewestWins("version"))
	case 4:
		b.fx.Delete(table, key, functions.Version{Column: "version", Value: version})
	case 5:
		b.fx.Add(table, key, functions.Row{"a": b.number(b.IntN(9) - 4)})
	case 6:
		b.fx.Delete(table, key)
	}
}

// family writes rows that reference each other, in a valid order.
func (b *builder) family() {
	there := map[int]bool{} // rows of base
	refers := map[int]int{} // rows of leaf, to the row of base that they reference
	for _, w := range b.fx.Writes {
		if w.Table == "base" || w.Table == "leaf" {
			return // once per event
		}
	}
	for range 2 + b.IntN(8) {
		slot := b.IntN(3)
		switch b.IntN(4) {
		case 0, 1:
			b.private("base", slot, false)
			there[slot] = true
		case 2:
			leaf := b.IntN(2)
			if !there[slot] {
				continue
			}
			refers[leaf] = slot
			b.fx.Upsert("leaf", functions.Row{"event": b.id, "slot": leaf, "of": slot, "a": b.number(b.IntN(9))}, functions.Replace())
		case 3:
			used := false
			for _, of := range refers {
				used = used || of == slot
			}
			if used {
				leaf := b.IntN(2)
				delete(refers, leaf)
				b.fx.Delete("leaf", functions.Row{"event": b.id, "slot": leaf})
				continue
			}
			delete(there, slot)
			b.fx.Delete("base", functions.Row{"event": b.id, "slot": slot})
		}
	}
}

// typed writes a row with a column of each type.
func (b *builder) typed() {
	id := fmt.Sprintf("%s-%d", b.id, len(b.fx.Writes))
	v := b.m.typedValues(b.i, id)
	row := functions.Row{"id": id}
	zone := time.FixedZone("somewhere", int(b.style%24)*3600)
	at := time.UnixMicro(v.micros).In(zone)
	all := functions.Row{
		"n": v.numeric, "tz": at, "ts": at, "d": v.date, "u": v.uuid, "j": v.json, "ints": v.ints, "texts": v.texts,
		"f": v.float, "by": v.bytes, "e": v.flag,
	}
	if b.style%2 == 1 { // a pointer is equal to the value that it points to
		all["tz"], all["ts"], all["f"], all["e"] = &at, &at, &v.float, &v.flag
	}
	for name, value := range all {
		row[name] = value
		if v.missing[name] {
			row[name] = nil
		}
	}
	b.fx.Insert("typed", row)
}

// values is a row of the table typed.
type values struct {
	numeric, uuid, date string
	micros              int64
	json                map[string]any
	ints                []int64
	texts               []string
	float               float64
	bytes               []byte
	flag                bool
	missing             map[string]bool
}

// typedValues returns the row with that id, which belongs to event i.
func (m *Model) typedValues(i int, id string) values {
	b := &builder{Rand: rand.New(rand.NewPCG(m.seed^uint64(len(id)), uint64(i)<<20|uint64(id[len(id)-1])))}
	v := values{
		numeric: fmt.Sprintf("%d.%03d", b.IntN(2000)-1000, b.IntN(1000)),
		uuid:    fmt.Sprintf("%08x-0000-4000-8000-%012x", b.Uint32(), b.Int64N(1<<40)),
		date:    epoch.AddDate(0, 0, b.IntN(9999)).Format(time.DateOnly),
		micros:  epoch.UnixMicro() + b.Int64N(1e15),
		json:    map[string]any{"n": float64(b.IntN(9)), "list": []any{"x", nil, b.word()}, b.word(): true},
		float:   b.NormFloat64(),
		flag:    b.IntN(2) == 0,
		missing: map[string]bool{},
		ints:    []int64{}, texts: []string{}, bytes: []byte{},
	}
	for range b.IntN(4) {
		v.ints = append(v.ints, int64(b.Int32()))
		v.texts = append(v.texts, b.word())
		v.bytes = append(v.bytes, byte(b.Uint32()))
	}
	for _, name := range []string{"n", "tz", "ts", "d", "u", "j", "ints", "texts", "f", "by", "e"} {
		v.missing[name] = b.IntN(6) == 0
	}
	return v
}

// take subtracts from the stock if there is enough: a statement of the function's
// own whose effect depends on other events.
func (b *builder) take() {
	for _, w := range b.fx.Writes {
		if w.Op == functions.OpExec && w.Statement.Name == "take" {
			return
		}
	}
	b.fx.Exec(functions.Statement{Name: "take", SQL: `with taken as (
    update stock set remaining = remaining - $3::bigint where item = $1 and remaining >= $3::bigint returning item)
insert into takings (event, item, n) select $2, item, $3::bigint from taken`}, item(b.IntN(Items)), b.id, b.number(1+b.IntN(5)))
}

// Items is the number of items in stock.
const Items = 4

func item(i int) string { return fmt.Sprintf("item-%d", i) }

// invite writes a row for each member of a room.
func (b *builder) invite() {
	b.fx.Exec(functions.Statement{
		Name: "invite", SQL: `insert into inbox (event, room, member) select $1, room, member from members where room = $2 on conflict do nothing`,
	}, b.id, b.number(b.IntN(5)))
}
