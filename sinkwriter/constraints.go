package sinkwriter

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

// constraints is what a table requires of its rows in addition to their types.
type constraints struct {
	checks [][]int // the columns of each CHECK

	// earlyChecks: INSERT checks the offered row, before it finds an existing one, by
	// more than CHECK and NOT NULL: BEFORE INSERT triggers, row policies, generated
	// columns, constraints of a partition.
	earlyChecks bool

	// watched: something beside the constraints observes or rejects each state of a
	// row, so that several changes of a row cannot be combined: triggers, policies,
	// generated columns, expression indexes.
	watched bool

	// bound: a row may be rejected for its key: foreign keys, partitions.
	bound bool
}

// columnConstraints is what one column requires of its values.
type columnConstraints struct {
	fullType   string // with its length or precision; for a domain, the underlying type
	typmod     int32  // -1 if there is none
	textual    bool   // compared by a collation: comparing the text byte by byte is the same on every server
	notNull    bool
	hasDefault bool

	checked bool // its type is a domain with constraints

	// watched: a value of the column may be rejected, or be visible to other rows:
	// domains, foreign keys, unique indexes, CHECKs.
	watched bool

	// bounds: only CHECKs that compare the column with a constant watch it, so
	// that every number between two allowed ones is allowed.
	bounds bool
}

const (
	tableConstraintsSQL = `
with target (oid) as (select $1::bigint::oid), below (oid) as (
    select p.relid::oid from target, pg_catalog.pg_partition_tree(target.oid::regclass) p where p.relid::oid <> target.oid
), triggers as (
    select tgtype from pg_catalog.pg_trigger, target
    where (tgrelid = target.oid or tgrelid in (select oid from below)) and not tgisinternal and tgenabled <> 'D'
)
select
  exists (select from triggers where tgtype & 7 = 7) or c.relrowsecurity
    or exists (select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attgenerated <> '')
    or exists (select from pg_catalog.pg_constraint k where k.conrelid in (select oid from below) and k.contype = 'c' and k.conislocal),
  exists (select from triggers) or c.relhasrules
    or exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and (i.indexprs is not null or i.indpred is not null)),
  c.relkind = 'p' or exists (select from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'f'),
  array(select k.oid from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'c' order by k.oid)
from pg_catalog.pg_class c, target where c.oid = target.oid`

	columnConstraintsSQL = `
with recursive target (oid) as (select $1::bigint::oid), under (attnum, type, typmod, required, checked, preset) as (
    select a.attnum, a.atttypid, a.atttypmod, a.attnotnull, false, a.atthasdef or a.attidentity <> ''
    from pg_catalog.pg_attribute a, target where a.attrelid = target.oid and a.attnum > 0 and not a.attisdropped
    union all
    select u.attnum, t.typbasetype, t.typtypmod, u.required or t.typnotnull, u.checked or t.typnotnull
        or exists (select from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c'), u.preset or t.typdefault is not null
    from under u join pg_catalog.pg_type t on t.oid = u.type where t.typtype = 'd'
)
select a.attname, pg_catalog.format_type(u.type, u.typmod), u.typmod,
  t.typcollation <> 0 or t.oid = 'jsonb'::regtype, u.required, u.preset, u.checked,
  u.checked
    or exists (select from pg_catalog.pg_constraint k where k.conrelid = a.attrelid and k.contype = 'f' and a.attnum = any(k.conkey))
    or exists (select from pg_catalog.pg_index i where i.indrelid = a.attrelid and not i.indisprimary and (i.indisunique or i.indisexclusion) and a.attnum = any(i.indkey)),
  array(select k.oid from pg_catalog.pg_constraint k where k.conrelid = a.attrelid and k.contype = 'c' and a.attnum = any(k.conkey) order by k.oid),
  array(select case when k.conkey = array[a.attnum] then pg_catalog.pg_get_expr(k.conbin, k.conrelid) else '' end
    from pg_catalog.pg_constraint k where k.conrelid = a.attrelid and k.contype = 'c' and a.attnum = any(k.conkey))
from under u
join pg_catalog.pg_type t on t.oid = u.type and t.typtype <> 'd'
join pg_catalog.pg_attribute a on a.attnum = u.attnum
join target on target.oid = a.attrelid
order by a.attnum`
)

// loadConstraints reads the table's constraints from the catalogs.
func (t *table) loadConstraints(ctx context.Context, conn *pgx.Conn) error {
	var checks []uint32
	if err := conn.QueryRow(ctx, tableConstraintsSQL, pgx.QueryExecModeExec, t.oid).Scan(&t.earlyChecks, &t.watched, &t.bound, &checks); err != nil {
		return err
	}
	t.watched = t.watched || t.earlyChecks
	t.checks = make([][]int, len(checks))
	rows, err := conn.Query(ctx, columnConstraintsSQL, pgx.QueryExecModeExec, t.oid)
	if err != nil {
		return err
	}
	var c columnConstraints
	var name string
	var of []uint32
	var expressions []string
	_, err = pgx.ForEachRow(rows, []any{
		&name, &c.fullType, &c.typmod, &c.textual, &c.notNull, &c.hasDefault, &c.checked, &c.watched, &of, &expressions,
	}, func() error {
		i, ok := t.byName[name]
		if !ok {
			return nil // the column has just been added
		}
		for _, oid := range of {
			if n := slices.Index(checks, oid); n >= 0 {
				t.checks[n] = append(t.checks[n], i)
			}
		}
		c.bounds = !c.watched && !slices.ContainsFunc(expressions, func(e string) bool { return !isBound(e) })
		c.watched = c.watched || len(of) > 0
		col := &t.columns[i]
		col.columnConstraints = c
		if col.inKey && c.typmod >= 0 {
			t.loose = true
			switch col.elemOID {
			case pgtype.BPCharOID:
			case pgtype.VarcharOID, pgtype.NumericOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
				col.spelling = normal // trailing blanks are cut off, numbers and times are rounded
			default:
				col.spelling, t.opaque = opaque, true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, columns := range t.checks {
		t.watched = t.watched || len(columns) == 0 // a CHECK of the whole row
	}
	return nil
}

// bound matches comparisons of a column with numbers, as the server writes them.
var bound = regexp.MustCompile(strings.ReplaceAll(`^(\({c}\)|\(\({c}\)( AND \({c}\))+\))$`,
	"{c}", `("[^"]+"|[a-z_][a-z0-9_]*) (>=|>|<=|<) \(?'?-?[0-9.]+'?(::[a-z]+)?\)?(::[a-z]+)?`))

// isBound reports whether the CHECK of one column only limits it to one side of a number,
// or to the numbers between two.
func isBound(expression string) bool { return bound.MatchString(expression) }

// checksEarly reports whether INSERT … ON CONFLICT may reject a write of these columns
// because of the row that it offers, although the resulting row is allowed, and does so
// even if the write changes something. See [findRows] for writes that change nothing.
func (t *table) checksEarly(op functions.Op, columns []int) bool {
	if op == functions.OpDelete || op == functions.OpInsert && !t.earlyChecks {
		return false
	}
	if t.earlyChecks || op == functions.OpAdd && len(t.checks) > 0 {
		return true
	}
	for i := range t.columns {
		c, named := &t.columns[i], slices.Contains(columns, i)
		if !named && !c.hasDefault && (c.notNull || c.checked) || named && c.checked && op == functions.OpAdd {
			return true
		}
	}
	for _, check := range t.checks {
		for _, c := range check {
			if !slices.Contains(columns, c) {
				return true // an expression that uses other columns, which keep their values
			}
		}
	}
	return false
}

// demands reports whether a row with these columns, and defaults in the others, may be
// rejected because of the others.
func (t *table) demands(columns []int) bool {
	for i := range t.columns {
		if c := &t.columns[i]; !c.hasDefault && (c.notNull || c.checked) && !slices.Contains(columns, i) {
			return true
		}
	}
	return len(t.checks) > 0
}

// findRows makes the batch look up its rows before it inserts any, after the server
// rejected a row that it offered. It reports whether that may change the outcome: a write
// that finds its row and changes nothing is not rejected, whatever it offers.
func findRows(batch []*offer, err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || answer.Code != "23514" && answer.Code != "23502" && !strings.HasPrefix(answer.Code, "22") {
		return false
	}
	changed := false
	for _, o := range batch {
		if o.findsRows {
			continue
		}
		o.findsRows = slices.ContainsFunc(o.effects.Writes, func(w functions.Write) bool {
			switch w.Op {
			case functions.OpInsert, functions.OpNewest, functions.OpOldest, functions.OpMax, functions.OpMin:
				return true
			default:
				return false
			}
		})
		changed = changed || o.findsRows
	}
	return changed
}

// sound reports whether no part of a write can be rejected, whatever the row is, and
// nothing observes the state of the row after it. Then the write can be omitted before one
// that overwrites the row.
func (p *plan) sound(w *planned) bool {
	if w.table.watched || w.shape.op == functions.OpAdd || w.shape.early || w.shape.op == functions.OpInsert && w.table.demands(w.shape.columns) {
		return false
	}
	for i, c := range w.shape.columns {
		if col := &w.table.columns[c]; i >= len(w.table.key) && (col.watched || col.notNull && w.values[i] == null) {
			return false
		}
	}
	return p.readable(w, true)
}

// vanishes reports whether a write may be omitted before a delete of its row.
func (p *plan) vanishes(w *planned) bool { return !w.table.bound && p.sound(w) }

// sums reports whether amounts that are added to a column may be added up first.
func (c *column) sums() bool {
	if c.watched && !c.bounds || c.cast != "" {
		return false
	}
	switch c.elemOID {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.NumericOID:
		return true
	}
	return false
}
