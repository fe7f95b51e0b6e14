package sinkwriter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

const (
	// versionOf is the version of a relation c of pg_class. It changes with the relation's
	// name, columns, column types, indexes, constraints, policies and triggers.
	versionOf = `(c.xmin::text::bigint
  + coalesce((select sum(v.xmin::text::bigint) from pg_catalog.pg_attribute v where v.attrelid = c.oid and v.attnum > 0), 0)
  + coalesce((select sum(v.xmin::text::bigint) from pg_catalog.pg_index v where v.indrelid = c.oid), 0)
  + coalesce((select sum(v.xmin::text::bigint) from pg_catalog.pg_constraint v where v.conrelid = c.oid), 0)
  + coalesce((select sum(v.xmin::text::bigint) from pg_catalog.pg_policy v where v.polrelid = c.oid), 0)
  + coalesce((select sum(v.xmin::text::bigint) from pg_catalog.pg_trigger v where v.tgrelid = c.oid), 0))::bigint`

	// columnsOf is the part of a version that concerns the columns and their
	// types.
	columnsOf = `(select sum(v.xmin::text::bigint)::bigint from pg_catalog.pg_attribute v where v.attrelid = c.oid and v.attnum > 0)`

	relationSQL = `
select c.oid, ` + versionOf + `, ` + columnsOf + `, c.relkind::text, c.relpersistence::text, c.relkind = 'r' and c.relhassubclass, n.nspname = 'tandem',
  exists (select from pg_catalog.pg_constraint f where f.contype = 'f' and f.confrelid = c.oid),
  k.oid is not null, coalesce(k.condeferrable, false), coalesce(i.indisexclusion, false),
  coalesce((select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum = any(k.conkey)
    and (a.attgenerated <> '' or a.attidentity = 'a') order by a.attnum limit 1), ''),
  coalesce((select quote_ident(u.relname) from pg_catalog.pg_index x join pg_catalog.pg_class u on u.oid = x.indexrelid
    where x.indrelid = c.oid and x.indisunique and x.indimmediate and x.indpred is null and x.indexprs is null
    order by u.relname limit 1), ''),
  exists (select from pg_catalog.pg_rewrite r where r.ev_class = c.oid and r.ev_type <> '1'),
  pg_catalog.row_security_active(c.oid) and not exists (select from pg_catalog.pg_policy p where p.polrelid = c.oid and p.polpermissive
    and p.polcmd in ('*', 'a') and exists (select from unnest(p.polroles) r where r = 0 or pg_catalog.pg_has_role(r, 'usage'))),
  current_user::text
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
left join pg_catalog.pg_index i on i.indexrelid = k.conindid
where c.oid = pg_catalog.to_regclass($1)`

	// The relations whose names occur in a statement.
	namedSQL = `select c.oid, ` + versionOf + `, ` + columnsOf + ` from pg_catalog.pg_class c
where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.oid >= 16384 and strpos(lower($1), lower(c.relname::text)) > 0`

	// The relations that have changed, by number from 1. The lateral join with offset
	// forces one lookup per relation, in a database with many.
	changedSQL = `select v.n from unnest($1::text[], $2::oid[], $3::bigint[]) with ordinality as v(name, oid, version, n)
left join lateral (select ` + versionOf + ` as version from pg_catalog.pg_class c where c.oid = v.oid offset 0) as r on true
where r.version is distinct from v.version or v.name is not null and pg_catalog.to_regclass(v.name)::oid is distinct from v.oid`

	// The tables that migrations of some sets created.
	madeSQL = `select distinct u.made from tandem.migration m, unnest(m.made) as u(made)
join pg_catalog.pg_class c on c.oid = pg_catalog.to_regclass(u.made)
where m.set = any($1) and c.relkind in ('r', 'p', 'f') order by u.made`

	// Fails (22012) if the columns of a relation have changed. Other changes make
	// statements fail, or do not affect existing columns. Every transaction that writes
	// executes it once per relation: with arrays the server would plan it every time.
	guardSQL = `select 1 / (coalesce((select sum(v.xmin::text::bigint)::bigint from pg_catalog.pg_attribute v where v.attrelid = $2::oid and v.attnum > 0) = $3::bigint, false)
  and ($1::text is null or coalesce(pg_catalog.to_regclass($1::text)::oid = $2::oid, false)))::int`
)

// loadRelation reads the properties of the whole table. It sets err, with the cause and
// the remedy, if effects cannot be written to the table.
func (t *table) loadRelation(ctx context.Context, conn *pgx.Conn) error {
	var kind, persistence, computed, unique, role string
	var ours, hasKey, deferrable, exclusion, rules bool
	err := conn.QueryRow(ctx, relationSQL, pgx.QueryExecModeExec, t.quoted).Scan(
		&t.oid, &t.version, &t.columnsVersion, &kind, &persistence, &t.inherited, &ours, &t.referenced, &hasKey, &deferrable, &exclusion, &computed, &unique, &rules,
		&t.noPolicy, &role)
	refuse := func(code, column, reason string) {
		t.err = &Error{Fault: FaultDeployment, code: code, Table: t.name, Column: column, Err: errors.New(reason)}
	}
	t.role = role
	t.partitioned = kind == "p"
	const remedyKey = "by which rows are addressed and ordered: add one"
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		refuse("42P01", "", "there is no such table, or this role may not see it: run the migrations (names are compared as they are: "+t.quoted+")")
		return nil
	case err != nil:
		return err
	case ours:
		refuse("42501", "", "schema tandem is not for functions' tables: name the table's own schema, or set the role's search_path")
	case kind == "v", kind == "m":
		refuse("42809", "", "it is a view, whose rows have no primary key: write the table behind it")
	case kind == "f":
		refuse("42809", "", "it is a foreign table, whose rows another server commits on its own: write a table of this database")
	case kind != "r" && kind != "p":
		refuse("42809", "", "it is no table")
	case persistence == "t":
		refuse("42809", "", "it is a temporary table, which one connection sees: create it without TEMPORARY")
	case persistence == "u":
		refuse("42809", "", "it is an unlogged table, which a crash empties although the ledger keeps its events: run alter table "+t.quoted+" set logged")
	case !hasKey && unique != "":
		refuse("42P10", "", "the table has no primary key, "+remedyKey+", if its columns are NOT NULL with alter table "+t.quoted+" add primary key using index "+unique)
	case !hasKey:
		refuse("42P10", "", "the table has no primary key, "+remedyKey)
	case deferrable:
		refuse("55000", "", "the primary key is deferrable, so that PostgreSQL cannot find a row by it in an upsert: create it as not deferrable")
	case exclusion:
		refuse("42P10", "", "the primary key has WITHOUT OVERLAPS, so that PostgreSQL cannot find a row by it in an upsert: create it without")
	case computed != "":
		refuse("428C9", computed, "the database computes this column of the primary key, which has to come from the event: make it a column without GENERATED ALWAYS")
	case rules:
		refuse("0A000", "", "the table has a rule, with which PostgreSQL allows no upserts: use a trigger")
	}
	return nil
}

func (t *table) errNoPolicy() error {
	return fmt.Errorf("row-level security is on, and no policy lets role %s insert rows: create one for all or insert", quoteIdent(t.role))
}

// unwritable returns the reason why a write cannot be executed although the table accepts
// others.
func (t *table) unwritable(w *functions.Write) error {
	if t.noPolicy && w.Op != functions.OpDelete {
		return &Error{Fault: FaultDeployment, code: "42501", Err: t.errNoPolicy()}
	}
	for _, row := range [...]functions.Row{w.Row, w.Key} {
		for name := range row {
			if c, ok := t.byName[name]; ok && t.columns[c].computed {
				return &Error{Fault: FaultEvent, code: "428C9", Column: name, Err: errors.New("the database computes this column: leave it out")}
			}
		}
	}
	return nil
}

// UnfitTables returns an error, with the cause and the remedy, for each table created by the
// migrations of these functions to which effects cannot be written. Events that write to such a
// table are answered with [FaultDeployment]. A table that functions only read, or that triggers
// write, may stay as it is.
func (w *Writer) UnfitTables(ctx context.Context, names ...string) ([]error, error) {
	conn, err := w.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up tables: %w", err)
	}
	defer conn.Release()
	rows, err := conn.Query(ctx, madeSQL, names)
	if err != nil {
		return nil, fmt.Errorf("look up tables: %w", err)
	}
	made, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look up tables: %w", err)
	}
	var unfit []error
	for _, name := range made { // the names are quoted already
		t := &table{name: name, quoted: name}
		err := t.loadRelation(ctx, conn.Conn())
		switch {
		case err != nil:
			return nil, fmt.Errorf("look up table %s: %w", name, err)
		case t.err != nil:
			unfit = append(unfit, fmt.Errorf("table %s: %w", name, t.err.Err))
		case t.noPolicy:
			unfit = append(unfit, fmt.Errorf("table %s: %w", name, t.errNoPolicy()))
		}
	}
	return unfit, nil
}

// reliance is the set of catalog entries that an attempt relies on.
type reliance struct {
	tables     map[string]*table
	statements map[string]*described // by SQL
}

func newReliance() *reliance {
	return &reliance{tables: map[string]*table{}, statements: map[string]*described{}}
}

// relations returns the names of the relations (NULL for those that only statements may
// reference), their OIDs and their versions, as the parameters of changedSQL.
func (r *reliance) relations() (params [][]byte, tables []*table, statements []*described) {
	var names [][]byte
	var all []relation
	for _, t := range r.tables {
		if t.err == nil {
			names, all = append(names, []byte(t.quoted)), append(all, t.relation)
			tables, statements = append(tables, t), append(statements, nil)
		}
	}
	for _, st := range r.statements {
		for _, rel := range st.relations {
			names, all = append(names, nil), append(all, rel)
			tables, statements = append(tables, nil), append(statements, st)
		}
	}
	return [][]byte{
		appendArray(nil, pgtype.TextOID, len(all), func(i int) ([]byte, bool) { return names[i], names[i] == nil }),
		appendArray(nil, pgtype.OIDOID, len(all), func(i int) ([]byte, bool) { return binary.BigEndian.AppendUint32(nil, all[i].oid), false }),
		appendArray(nil, pgtype.Int8OID, len(all), func(i int) ([]byte, bool) { return int8Param(all[i].version), false }),
	}, tables, statements
}

var relationOIDs = []uint32{pgtype.TextArrayOID, pgtype.OIDArrayOID, pgtype.Int8ArrayOID}

// guard returns the steps that fail if the tables have changed since they were looked up.
// They follow the effects, which lock the tables.
func (r *reliance) guard() []step {
	var steps []step
	add := func(name []byte, rel *relation) {
		oid := binary.BigEndian.AppendUint32(nil, rel.oid)
		steps = append(steps, step{sql: guardSQL, oids: guardOIDs, params: [][]byte{name, oid, int8Param(rel.columnsVersion)}, guard: true})
	}
	for _, t := range r.tables {
		if t.err == nil {
			add([]byte(t.quoted), &t.relation)
		}
	}
	for _, st := range r.statements {
		for i := range st.relations {
			add(nil, &st.relations[i])
		}
	}
	return steps
}

var guardOIDs = []uint32{pgtype.TextOID, pgtype.OIDOID, pgtype.Int8OID}
