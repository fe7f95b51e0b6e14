package model

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/functions"
)

// Queries returns, by table, a query in the form that [Model.Check] accepts.
func Queries() map[string]string {
	return map[string]string{
		"counters":     `select k, n, m::text from counters`,
		"counters_ci":  `select lower(k::text) as k, n from counters_ci`,
		"counters_pad": `select rtrim(k) as k, n from counters_pad`,
		"counters_num": `select trim_scale(k)::text as k, n from counters_num`,
		"newest":       `select k, version, a, b, deleted from newest`,
		"oldest":       `select k, version, a, b from oldest`,
		"extremes":     `select k, high, word, low, least from extremes`,
		"amounts":      `select k, i, (n * 100)::bigint as n, (p * 100)::bigint as p, (m::numeric * 100)::bigint as m from amounts`,
		"accounts":     `select k, owner, version, note, n from accounts`,
		"levels":       `select k, owner, n from levels`,
		"last":         `select k, a, b from last`,
		"parts":        `select k, a, b, c from parts`,
		"parents":      `select id from parents`,
		"children":     `select id, parent, note from children`,
		"users":        `select id, email from users`,
		"audited":      `select id, n from audited`,
		"audit":        `select id, n from audit`,
		"own":          `select event, slot, a, b, version, deleted from own`,
		"base":         `select event, slot, a, b, version, deleted from base`,
		"leaf":         `select event, slot, of, a from leaf`,
		"typed": `select id, n::text, (extract(epoch from tz) * 1000000)::bigint as tz, (extract(epoch from ts) * 1000000)::bigint as ts, d::text, u::text, j::text,
    array_to_json(ints)::text as ints, array_to_json(texts)::text as texts, f, encode(by, 'hex') as by, e from typed`,
		"stock":   `select item, remaining from stock`,
		"takings": `select event, item, n from takings`,
		"inbox":   `select event, room, member from inbox`,
	}
}

// Stock returns the initial number of each item: less than all events together
// take.
func (m *Model) Stock() int64 { return int64(m.events / 20) }

// StockSQL returns the statement that inserts the stock.
func (m *Model) StockSQL() string {
	return fmt.Sprintf("insert into stock select 'item-' || i, %d from generate_series(0, %d) i", m.Stock(), Items-1)
}

// shapes returns the tables whose rows are computed write by write.
func shapes() map[string]table {
	private := table{key: []string{"event", "slot"}, columns: []string{"event", "slot", "a", "b", "version", "deleted"}}
	return map[string]table{
		"own": private, "base": private,
		"leaf":     {key: []string{"event", "slot"}, columns: []string{"event", "slot", "of", "a"}},
		"newest":   {key: []string{"k"}, columns: []string{"k", "version", "a", "b", "deleted"}},
		"oldest":   {key: []string{"k"}, columns: []string{"k", "version", "a", "b"}},
		"extremes": {key: []string{"k"}, columns: []string{"k", "high", "word", "low", "least"}},
		"accounts": {key: []string{"k"}, columns: []string{"k", "owner", "version", "note", "n"}},
		"levels":   {key: []string{"k"}, columns: []string{"k", "owner", "n"}},
		"amounts":  {key: []string{"k"}, columns: []string{"k", "i", "n", "p", "m"}},
		"last":     {key: []string{"k"}, columns: []string{"k", "a", "b"}},
		"parts":    {key: []string{"k"}, columns: []string{"k", "a", "b", "c"}},
		"parents":  {key: []string{"id"}, columns: []string{"id"}},
		"children": {key: []string{"id"}, columns: []string{"id", "parent", "note"}},
		"users":    {key: []string{"id"}, columns: []string{"id", "email"}},
		"audited":  {key: []string{"id"}, columns: []string{"id", "n"}},
	}
}

// checker holds the expected contents of the tables.
type checker struct {
	m       *Model
	shapes  map[string]table
	rows    map[string]map[string]Row // tables with a single possible result
	sums    map[string]map[string]Row
	choices map[string]map[string]*choice
	typed   map[string]values
	inbox   map[string]bool
	takes   map[string]int64 // event and item to the wanted amount
	emails  map[string]bool
	faults  []string
}

// choice holds the possible values of a row of a table with several possible
// results.
type choice struct {
	first   map[string]bool            // the row if a single event wrote it
	always  map[string]bool            // results of events that do not depend on the row before; "" is deleted
	columns map[string]map[string]bool // the same by column
}

const maxFaults = 20

func (c *checker) fault(format string, args ...any) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

// Check compares the contents of the tables, as read by [Queries], with the
// result that the committed events must have. It returns the differences, at most
// 20 lines.
func (m *Model) Check(won func(i int) bool, tables map[string][]Row) []string {
	c := &checker{
		m: m, shapes: shapes(),
		rows: map[string]map[string]Row{}, sums: map[string]map[string]Row{}, choices: map[string]map[string]*choice{},
		typed: map[string]values{}, inbox: map[string]bool{}, takes: map[string]int64{}, emails: map[string]bool{},
	}
	for i := range 5 {
		k := fmt.Sprintf("hot-%d", i)
		at(c.rows, "newest")[k] = Row{"k": k, "version": nil, "a": int64(1), "b": "before", "deleted": false}
		at(c.rows, "accounts")[k] = Row{"k": k, "owner": "owner", "version": nil, "note": nil, "n": int64(7)}
	}
	for i := range 4 {
		k := fmt.Sprintf("level-%d", i)
		at(c.rows, "levels")[k] = Row{"k": k, "owner": "owner", "n": int64(20)}
	}
	for i := range m.events {
		fx, verdict := m.Effects(i, 0)
		w := won(i)
		if w {
			c.add(i, fx)
		}
		if w && verdict >= Refused || !w && verdict == Commits {
			c.fault("event %d: committed %t, but its verdict is %d", i, w, verdict)
		}
	}
	for i := range m.events { // a refused event must have lost to another one
		if fx, verdict := m.Effects(i, 0); verdict == Contends && !won(i) && !slices.ContainsFunc(fx.Writes, func(w functions.Write) bool {
			return w.Table == "users" && c.emails[fmt.Sprint(w.Row["email"])]
		}) {
			c.fault("event %d was refused, but no other event has its address", i)
		}
	}
	c.compare(tables)
	return c.faults
}

func at[V any](m map[string]map[string]V, name string) map[string]V {
	if m[name] == nil {
		m[name] = map[string]V{}
	}
	return m[name]
}

// add adds the effects of a committed event.
func (c *checker) add(i int, fx functions.Effects) {
	choices := map[string][]functions.Write{}
	for _, w := range fx.Writes {
		switch w.Table {
		case "": // a statement of the function's own
			c.addExec(w)
		case "counters", "counters_ci", "counters_pad", "counters_num":
			c.addSum(w)
		case "last", "parts":
			id := w.Table + " " + c.shapes[w.Table].id(w)
			choices[id] = append(choices[id], w)
		case "typed":
			id := fmt.Sprint(w.Row["id"])
			c.typed[id] = c.m.typedValues(i, id)
		default:
			t := c.shapes[w.Table]
			if w.Table == "amounts" {
				w.Row = inHundredths(w.Row)
			}
			rows, id := at(c.rows, w.Table), t.id(w)
			if row := t.apply(rows[id], w); row != nil {
				rows[id] = row
			} else {
				delete(rows, id)
			}
			if w.Table == "users" {
				c.emails[fmt.Sprint(w.Row["email"])] = true
			}
			if w.Table == "audited" {
				at(c.rows, "audit")[id] = Row{"id": id, "n": plain(w.Row["n"])}
			}
		}
	}
	for _, writes := range choices {
		c.addChoice(writes)
	}
}

func (t table) id(w functions.Write) string {
	part := w.Row
	if w.Key != nil {
		part = w.Key
	}
	return t.rowID(Row(part))
}

func (t table) rowID(row Row) string {
	var id []string
	for _, name := range t.key {
		id = append(id, fmt.Sprint(row[name]))
	}
	return strings.Join(id, "/")
}

// inHundredths returns amounts as integers.
func inHundredths(row functions.Row) functions.Row {
	row = maps.Clone(row)
	for name, v := range row {
		if text, ok := v.(string); ok {
			n, err := strconv.ParseInt(strings.Replace(text, ".", "", 1), 10, 64)
			if err != nil {
				panic(err)
			}
			row[name] = n
		}
	}
	return row
}

func (c *checker) addExec(w functions.Write) {
	switch w.Statement.Name {
	case "take":
		n, _ := plain(w.Args[2]).(int64)
		c.takes[fmt.Sprint(w.Args[1], "/", w.Args[0])] = n
	case "invite":
		room, _ := plain(w.Args[1]).(int64)
		for member := range room {
			c.inbox[fmt.Sprint(w.Args[0], "/", room, "/", member+1)] = true
		}
	}
}

func (c *checker) addSum(w functions.Write) {
	k := strings.ToLower(strings.TrimRight(fmt.Sprint(w.Key["k"]), " "))
	if w.Table == "counters_num" {
		whole, _, _ := strings.Cut(k, ".")
		if k = strings.TrimLeft(whole, "0"); k == "" {
			k = "0"
		}
	}
	sums := at(c.sums, w.Table)
	if sums[k] == nil {
		sums[k] = Row{"k": k}
	}
	for name, v := range w.Row {
		before, _ := sums[k][name].(int64)
		amount, _ := plain(v).(int64)
		sums[k][name] = before + amount
	}
}

// addChoice adds the writes of one event to a row that other events write, too.
// It applies them to a missing row and to a row with values that no event
// writes.
func (c *checker) addChoice(writes []functions.Write) {
	name := writes[0].Table
	t := c.shapes[name]
	choices, id := at(c.choices, name), t.id(writes[0])
	if choices[id] == nil {
		choices[id] = &choice{first: map[string]bool{}, always: map[string]bool{}, columns: map[string]map[string]bool{}}
	}
	ch := choices[id]
	before := Row{}
	for _, column := range t.columns {
		before[column] = "somebody else's " + column
	}
	made, changed := Row(nil), before
	for _, w := range writes {
		made, changed = t.apply(made, w), t.apply(changed, w)
	}
	if made != nil {
		ch.first[t.text(made)] = true
	}
	if !reflect.DeepEqual(changed, before) {
		ch.always[t.text(changed)] = true
	}
	for _, column := range t.columns {
		if changed != nil && changed[column] != before[column] {
			at(ch.columns, column)[fmt.Sprint(changed[column])] = true
		}
		if made != nil {
			at(ch.columns, "first "+column)[fmt.Sprint(made[column])] = true
		}
	}
}

// text returns a row as one line; empty if there is none.
func (t table) text(row Row) string {
	if row == nil {
		return ""
	}
	var parts []string
	for _, name := range t.columns {
		parts = append(parts, fmt.Sprintf("%s=%v", name, row[name]))
	}
	return strings.Join(parts, " ")
}

func (c *checker) compare(tables map[string][]Row) {
	for name, rows := range tables {
		for _, row := range rows {
			for column, v := range row {
				row[column] = plain(v)
			}
		}
		switch name {
		case "counters", "counters_ci", "counters_pad", "counters_num":
			c.compareSums(name, rows)
		case "last":
			c.compareLast(rows)
		case "parts":
			c.compareParts(rows)
		case "typed":
			c.compareTyped(rows)
		case "stock", "takings", "inbox":
		default:
			c.compareRows(name, rows)
		}
	}
	c.compareStock(tables["stock"], tables["takings"])
	c.compareInbox(tables["inbox"])
}

func (c *checker) compareSums(name string, rows []Row) {
	want := maps.Clone(c.sums[name])
	for _, row := range rows {
		k := fmt.Sprint(row["k"])
		w := want[k]
		delete(want, k)
		if w == nil || w["n"] != row["n"] || row["m"] != nil && fmt.Sprint(w["m"]) != row["m"] || row["m"] == nil && w["m"] != nil {
			c.fault("%s: row %v, want %v", name, row, w)
		}
	}
	for _, w := range want {
		c.fault("%s: no row, want %v", name, w)
	}
}

func (c *checker) compareRows(name string, rows []Row) {
	t, ok := c.shapes[name]
	if !ok {
		t = table{key: []string{"id"}, columns: []string{"id", "n"}}
	}
	want := maps.Clone(c.rows[name])
	for _, row := range rows {
		id := t.rowID(row)
		w := want[id]
		delete(want, id)
		switch {
		case w == nil:
			c.fault("%s: row %v, want none", name, row)
		case name == "newest" && w["deleted"] == true && row["deleted"] == true && w["version"] == row["version"]:
			// The rest of a row that is marked deleted is not visible, so it may
			// have any value.
		case !reflect.DeepEqual(map[string]any(w), map[string]any(row)):
			c.fault("%s: row %v, want %v", name, row, w)
		}
	}
	for _, w := range want {
		c.fault("%s: no row, want %v", name, w)
	}
}

// compareLast compares rows with the results that a single event leaves
// whatever was there before, or that of an insert, if the row may have been
// missing.
func (c *checker) compareLast(rows []Row) {
	t := c.shapes["last"]
	got := map[string]Row{}
	for _, row := range rows {
		got[t.rowID(row)] = row
	}
	for id := range got {
		if c.choices["last"][id] == nil {
			c.fault("last: row %v, want none", got[id])
		}
	}
	for id, ch := range c.choices["last"] {
		text := t.text(got[id])
		if !ch.always[text] && (!ch.first[text] || len(ch.always) > 0 && !ch.always[""]) {
			c.fault("last: row %s is %q, which no order of the events makes it", id, text)
		}
	}
}

func (c *checker) compareParts(rows []Row) {
	if len(rows) != len(c.choices["parts"]) {
		c.fault("parts: %d rows, want %d", len(rows), len(c.choices["parts"]))
	}
	for _, row := range rows {
		ch := c.choices["parts"][fmt.Sprint(row["k"])]
		if ch == nil {
			c.fault("parts: row %v, want none", row)
			continue
		}
		for _, column := range []string{"a", "b", "c"} {
			possible := ch.columns[column]
			if possible == nil {
				possible = ch.columns["first "+column]
			}
			if !possible[fmt.Sprint(row[column])] {
				c.fault("parts: row %v, column %s, want one of %v", row, column, possible)
			}
		}
	}
}

func (c *checker) compareTyped(rows []Row) {
	want := maps.Clone(c.typed)
	for _, row := range rows {
		id := fmt.Sprint(row["id"])
		v, ok := want[id]
		delete(want, id)
		if !ok {
			c.fault("typed: row %v, want none", row)
			continue
		}
		for name, w := range v.stored() {
			if got := row[name]; got != w && !sameJSON(got, w) {
				c.fault("typed: row %s, column %s is %v, want %v", id, name, got, w)
			}
		}
	}
	for id := range want {
		c.fault("typed: no row %s", id)
	}
}

// stored returns the values as the query reads them.
func (v values) stored() Row {
	text := func(v any) any {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return string(b)
	}
	row := Row{
		"n": v.numeric, "tz": v.micros, "ts": v.micros, "d": v.date, "u": v.uuid, "j": text(v.json), "ints": text(v.ints),
		"texts": text(v.texts), "f": v.float, "by": hex.EncodeToString(v.bytes), "e": v.flag,
	}
	for name, missing := range v.missing {
		if missing {
			row[name] = nil
		}
	}
	return row
}

func sameJSON(a, b any) bool {
	var x, y any
	s, ok := a.(string)
	u, ok2 := b.(string)
	return ok && ok2 && json.Unmarshal([]byte(s), &x) == nil && json.Unmarshal([]byte(u), &y) == nil && reflect.DeepEqual(x, y)
}

func (c *checker) compareStock(stock, takings []Row) {
	remaining, taken := map[string]int64{}, map[string]int64{}
	for _, row := range stock {
		n, _ := row["remaining"].(int64)
		remaining[fmt.Sprint(row["item"])] = n
	}
	granted := map[string]bool{}
	for _, row := range takings {
		id, n := fmt.Sprint(row["event"], "/", row["item"]), plain(row["n"])
		if want, ok := c.takes[id]; !ok || want != n {
			c.fault("takings: row %v, want %d (%t)", row, want, ok)
		}
		granted[id] = true
		amount, _ := n.(int64)
		taken[fmt.Sprint(row["item"])] += amount
	}
	for name, n := range remaining {
		if n+taken[name] != c.m.Stock() {
			c.fault("stock: of %s %d remain and %d were taken, together not %d", name, n, taken[name], c.m.Stock())
		}
	}
	for id, n := range c.takes {
		_, name, _ := strings.Cut(id, "/")
		if !granted[id] && n <= remaining[name] {
			c.fault("takings: %s wanted %d and got none, although %d remain", id, n, remaining[name])
		}
	}
}

func (c *checker) compareInbox(rows []Row) {
	want := maps.Clone(c.inbox)
	for _, row := range rows {
		id := fmt.Sprint(row["event"], "/", row["room"], "/", row["member"])
		if !want[id] {
			c.fault("inbox: row %v, want none", row)
		}
		delete(want, id)
	}
	for id := range want {
		c.fault("inbox: no row %s", id)
	}
}

// CheckOutputs compares the outputs that were published or are in the outbox with
// those of the committed events. Duplicates do not count. A line is the source,
// id, type, subject, time and data of an output.
func (m *Model) CheckOutputs(won func(i int) bool, got map[string]bool) []string {
	c := &checker{}
	want := map[string]bool{}
	for i := range m.events {
		if !won(i) {
			continue
		}
		fx, _ := m.Effects(i, 0)
		for position, o := range fx.Outputs {
			source, id := functions.OutputIdentity(Function, Source, m.ID(i), position)
			data, ok := o.Data.([]byte)
			if !ok && o.Data != nil {
				var err error
				if data, err = json.Marshal(o.Data); err != nil {
					c.fault("event %d: %v", i, err)
				}
			}
			want[OutputLine(source, id, o.Type, o.Subject, epoch.Add(time.Duration(i)*time.Second), data)] = true
		}
	}
	for line := range got {
		if !want[line] {
			c.fault("output %s, want none", line)
		}
	}
	for line := range want {
		if !got[line] {
			c.fault("no output %s", line)
		}
	}
	return c.faults
}

// OutputLine formats an output as one line.
func OutputLine(source, id, kind, subject string, at time.Time, data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) == nil {
		data = compact.Bytes()
	}
	return fmt.Sprintf("%s %s %s %s %s %q", source, id, kind, subject, at.UTC().Format(time.RFC3339), data)
}
