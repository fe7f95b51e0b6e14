package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/functions"
)

const (
	columnsSQL = `select a.attname, format_type(a.atttypid, null),
    coalesce(a.attnum = any(k.conkey), false), c.oid::regclass::text
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
where c.oid = $1::text::regclass order by a.attnum`

	rowPortion = 500
)

// table is one that functions write to.
type table struct {
	name  string // quoted where it must be, with its schema where it must be
	key   []string
	types map[string]string // of all columns
	rows  map[string]*row   // by their keys, as we write them
}

func describe(ctx context.Context, tx pgx.Tx, name string) (*table, error) {
	rows, err := tx.Query(ctx, columnsSQL, pgx.Identifier(strings.Split(name, ".")).Sanitize())
	if err != nil {
		return nil, err
	}
	t := &table{types: map[string]string{}, rows: map[string]*row{}}
	var column, kind string
	var isKey bool
	if _, err := pgx.ForEachRow(rows, []any{&column, &kind, &isKey, &t.name}, func() error {
		t.types[column] = kind
		if isKey {
			t.key = append(t.key, column)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(t.key) == 0 {
		return nil, fmt.Errorf("it has no primary key")
	}
	return t, nil
}

// encode writes values as JSON from which the server makes values of the columns'
// types.
func (t *table) encode(values functions.Row) ([]byte, error) {
	object := make(map[string]any, len(values))
	for name, value := range values {
		object[name] = t.plain(name, value)
	}
	return json.Marshal(object)
}

func (t *table) plain(column string, value any) any {
	isJSON := t.types[column] == "json" || t.types[column] == "jsonb"
	switch v := value.(type) {
	case []byte:
		switch {
		case isJSON:
			return json.RawMessage(v)
		case t.types[column] == "bytea":
			return `\x` + hex.EncodeToString(v)
		}
		return string(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case [16]byte:
		return hex.EncodeToString(v[:])
	}
	return value
}

// compareRows compares all tables with what is expected of them.
func (a *audit) compareRows(ctx context.Context) error {
	a.report.unchecked("writes of statements of a function's own", a.expected.statements)
	complete := a.report.Complete && !a.expected.holes
	for _, t := range a.expected.tables {
		// Keys as the server writes them.
		there := map[string]bool{}
		groups := map[string][]*row{}
		for _, r := range t.rows {
			if r.deleted && r.written {
				a.report.unchecked("rows written and deleted by events without a version", 1)
				continue
			}
			if r.deleted {
				continue
			}
			var names []string
			for name, c := range r.cells {
				if _, ok := c.certain(complete); ok {
					names = append(names, name)
				} else {
					a.report.unchecked("columns whose value depends on more than the events read", 1)
				}
			}
			slices.Sort(names)
			shape := strings.Join(names, "\x00")
			groups[shape] = append(groups[shape], r)
		}
		for shape, rows := range groups {
			var names []string
			if shape != "" {
				names = strings.Split(shape, "\x00")
			}
			for part := range slices.Chunk(rows, rowPortion) {
				if err := a.comparePart(ctx, t, names, part, complete, there); err != nil {
					return fmt.Errorf("table %s: %w", t.name, err)
				}
			}
		}
		if !complete {
			a.report.unchecked("whether tables have more rows than events explain", 1)
			continue
		}
		if err := a.lookForExtraRows(ctx, t, there); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	return nil
}

// comparePart compares rows of which the same columns are certain.
func (a *audit) comparePart(ctx context.Context, t *table, names []string, part []*row, complete bool, there map[string]bool) error {
	want := make([]json.RawMessage, len(part))
	for i, r := range part {
		values := functions.Row{}
		for name, value := range r.key {
			values[name] = value
		}
		for _, name := range names {
			values[name], _ = r.cells[name].certain(complete)
		}
		var err error
		if want[i], err = t.encode(values); err != nil {
			return err
		}
	}
	document, err := json.Marshal(want)
	if err != nil {
		return err
	}
	rows, err := a.tx.Query(ctx, t.compareSQL(names), document)
	if err != nil {
		return err
	}
	var n int
	var found bool
	var wrong []string
	var key, is []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &found, &wrong, &key, &is}, func() error {
		a.report.Rows++
		finding := Finding{Thing: Row, Table: t.name, Key: slices.Clone(key)}
		switch {
		case !found:
			finding.Kind, finding.Detail = Missing, fmt.Sprintf("should be %s", want[n-1])
		case len(wrong) > 0:
			finding.Kind = Different
			finding.Detail = fmt.Sprintf("%s: is %s, should be %s", strings.Join(wrong, ", "), is, want[n-1])
		}
		if finding.Kind != "" {
			a.report.add(a.Limit, finding)
		}
		there[string(key)] = true
		return nil
	})
	return err
}

// compareSQL gives for each row its number, whether it is there, the columns that
// differ, its key and the row as it is.
func (t *table) compareSQL(names []string) string {
	var on, differ, keys []string
	for _, name := range t.key {
		q := quote(name)
		on = append(on, fmt.Sprintf("t.%s = (u.w).%s", q, q))
		keys = append(keys, "(u.w)."+q)
	}
	for _, name := range names {
		q := quote(name)
		differ = append(differ, fmt.Sprintf("case when to_jsonb(t.%s) is distinct from to_jsonb((u.w).%s) then %s end", q, q, literal(name)))
	}
	return fmt.Sprintf(`select u.n::int, t.ctid is not null, array_remove(array[%s]::text[], null), jsonb_build_array(%s), coalesce(to_jsonb(t), 'null')
from (select n, jsonb_populate_record(null::%s, doc) as w from jsonb_array_elements($1::jsonb) with ordinality as e(doc, n) offset 0) as u
left join %s as t on %s order by u.n`,
		strings.Join(differ, ", "), strings.Join(keys, ", "), t.name, t.name, strings.Join(on, " and "))
}

func (a *audit) lookForExtraRows(ctx context.Context, t *table, there map[string]bool) error {
	var keys []string
	for _, name := range t.key {
		keys = append(keys, "t."+quote(name))
	}
	rows, err := a.tx.Query(ctx, fmt.Sprintf("select jsonb_build_array(%s), to_jsonb(t) from %s as t", strings.Join(keys, ", "), t.name))
	if err != nil {
		return err
	}
	var key, is []byte
	_, err = pgx.ForEachRow(rows, []any{&key, &is}, func() error {
		if !there[string(key)] {
			a.report.add(a.Limit, Finding{Kind: Extra, Thing: Row, Table: t.name, Key: slices.Clone(key), Detail: fmt.Sprintf("no event explains %s", is)})
		}
		return nil
	})
	return err
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
