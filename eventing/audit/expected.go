package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// expected is the expected content of the tables.
type expected struct {
	tables map[string]*table

	// some effects are unknown
	holes      bool
	statements int64
}

// row is a row to which events have written.
type row struct {
	key   functions.Row
	cells map[string]*cell

	written bool // by anything but a delete
	deleted bool // by a delete without a version
	version any  // the newest or oldest so far
	oldest  bool // which of the two
}

// cell is the expected value of a column.
type cell struct {
	value  any
	set    bool
	sum    *big.Int // of the additions, nil if there was none
	late   bool     // an event that was not read may have changed it
	unsure bool
}

// write adds one write to the expected content.
func (a *audit) write(ctx context.Context, w *functions.Write) error {
	if w.Op == functions.OpExec {
		a.expected.statements++
		a.expected.holes = true
		return nil
	}
	t := a.expected.tables[w.Table]
	if t == nil {
		described, err := a.database.Table(ctx, w.Table)
		if err != nil {
			return fmt.Errorf("look at table %s: %w", w.Table, err)
		}
		t = &table{Table: described, rows: map[string]*row{}}
		a.expected.tables[w.Table] = t
	}
	key := functions.Row{}
	for _, name := range t.Key {
		value, ok := w.Row[name]
		if w.Key != nil {
			value, ok = w.Key[name]
		}
		if !ok {
			return fmt.Errorf("a write to table %s does not have column %s of its key", w.Table, name)
		}
		key[name] = value
	}
	text, err := t.encode(key)
	if err != nil {
		return fmt.Errorf("key of table %s: %w", w.Table, err)
	}
	r := t.rows[string(text)]
	if r == nil {
		r = &row{key: key, cells: map[string]*cell{}}
		t.rows[string(text)] = r
	}
	r.apply(t, w)
	return nil
}

// apply applies a write, as far as its result is certain in any order of the commits.
func (r *row) apply(t *table, w *functions.Write) {
	if w.Op == functions.OpDelete {
		r.deleted = true
		return
	}
	r.written = true
	newer := 1
	if versioned(w) {
		newer = r.compare(w.Row[w.Version], w.Op == functions.OpOldest)
	}
	for name, value := range w.Row {
		if _, isKey := r.key[name]; isKey {
			continue
		}
		c := r.cell(name)
		switch w.Op {
		case functions.OpAdd:
			c.late = true
			c.add(value)
		case functions.OpNewest, functions.OpOldest, functions.OpDeleteNewest:
			c.late = true
			c.newest(value, newer)
		case functions.OpMax, functions.OpMin:
			c.late = true
			c.extreme(value, w.Op == functions.OpMin)
		case functions.OpReplace:
			c.late = true
			c.assign(value)
		default:
			c.assign(value)
		}
	}
	if !versioned(w) {
		return
	}
	if _, named := w.Row["deleted"]; !named && w.Op != functions.OpOldest && t.Types["deleted"] == "boolean" {
		c := r.cell("deleted")
		c.late = true
		c.newest(w.Op == functions.OpDeleteNewest, newer)
	}
	// A column that only one of two versions has written exists or not, depending on
	// which was applied first.
	for name, c := range r.cells {
		if _, named := w.Row[name]; !named && name != "deleted" {
			c.unsure = true
		}
	}
	if newer > 0 {
		r.version = w.Row[w.Version]
	}
}

// versioned reports whether a write has a version that decides.
func versioned(w *functions.Write) bool {
	return w.Op == functions.OpNewest || w.Op == functions.OpOldest || w.Op == functions.OpDeleteNewest
}

func (r *row) cell(name string) *cell {
	c := r.cells[name]
	if c == nil {
		c = &cell{unsure: r.version != nil}
		r.cells[name] = c
	}
	return c
}

// assign is for writes of which the first or the last one stays: with two different
// ones, the value is uncertain.
func (c *cell) assign(value any) {
	if c.set && !same(c.value, value) {
		c.unsure = true
	}
	c.value, c.set = value, true
}

func (c *cell) newest(value any, newer int) {
	switch {
	case !c.set || newer > 0:
		c.value, c.set = value, true
	case newer == 0 && !same(c.value, value):
		c.unsure = true
	}
}

func (c *cell) add(amount any) {
	v := reflect.ValueOf(amount)
	if c.sum == nil {
		c.sum = new(big.Int)
	}
	switch {
	case v.CanInt():
		c.sum.Add(c.sum, big.NewInt(v.Int()))
	case v.CanUint():
		c.sum.Add(c.sum, new(big.Int).SetUint64(v.Uint()))
	default: // the sum of floats depends on their order
		c.unsure = true
	}
}

// compare reports whether a version is newer, in the wanted order, than the one so far
// (1), equal (0), or older (-1). Versions that cannot be compared here make the row
// uncertain.
func (r *row) compare(version any, oldest bool) int {
	if r.version == nil {
		r.oldest = oldest
		return 1
	}
	order, ok := orderOf(r.version, version)
	switch {
	case !ok || r.oldest != oldest:
		for _, c := range r.cells {
			c.unsure = true
		}
		return 0
	case oldest:
		return -order
	}
	return order
}

// extreme keeps the greater of two values, or the lesser; NULL counts as no value.
func (c *cell) extreme(value any, least bool) {
	if !c.set || c.value == nil {
		c.value, c.set = value, true
		return
	}
	if value == nil {
		return
	}
	order, ok := orderOf(c.value, value)
	switch {
	case !ok:
		c.unsure = true
	case order != 0 && (order < 0) == least:
		c.value = value
	}
}

// orderOf compares b with a, if both are integers or times, or if they are equal.
func orderOf(a, b any) (order int, ok bool) {
	if same(a, b) {
		return 0, true
	}
	at, aIsTime := a.(time.Time)
	bt, bIsTime := b.(time.Time)
	if aIsTime && bIsTime {
		return bt.Compare(at), true
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.IsValid() && y.IsValid() && x.CanInt() && y.CanInt() {
		return cmp.Compare(y.Int(), x.Int()), true
	}
	return 0, false
}

// certain returns the value that the column must have, if it is certain.
func (c *cell) certain(complete bool) (any, bool) {
	switch {
	case c.unsure, c.late && !complete:
		return nil, false
	case c.sum == nil:
		return c.value, true
	case c.set: // whether the row existed before the first addition is unknown
		v := reflect.ValueOf(c.value)
		return json.Number(c.sum.String()), v.CanInt() && v.Int() == 0
	}
	return json.Number(c.sum.String()), true
}

func same(a, b any) bool {
	at, ok := a.(time.Time)
	bt, okB := b.(time.Time)
	if ok && okB {
		return at.Equal(bt)
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	if x.IsValid() && y.IsValid() && x.CanInt() && y.CanInt() {
		return x.Int() == y.Int()
	}
	return reflect.DeepEqual(a, b)
}
