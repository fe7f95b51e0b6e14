package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// catalog knows the tables that effects are written to: columns, types, primary
// keys and the order that foreign keys ask for. Shared by all batches.
type catalog struct {
	mu         sync.RWMutex
	tables     map[string]*table
	statements map[string]*described // by SQL
}

// described is what the catalog knows of a statement of a function.
type described struct {
	sql       string
	oids      []uint32   // of its parameters
	relations []relation // that it may name
	err       *Error     // why it cannot be executed, or nil

	loaded  time.Time
	checked atomic.Pointer[time.Time] // the latest time at which it was known to be so
}

// relation is a version of a relation of the database.
type relation struct {
	oid                     uint32
	version, columnsVersion int64
}

// table is what the catalog knows of one table.
type table struct {
	name   string // as the function spells it
	quoted string
	relation
	err     *Error // why effects cannot be written to it, or nil
	rank    int    // above that of every table it refers to
	columns []column
	byName  map[string]int
	key     []int // the primary key's columns

	// Referenced: a foreign key, of its own too, refers to it. Loose: equal keys
	// may have been spelled in two ways. Opaque: and we cannot tell.
	referenced, loose, opaque bool

	// Inherited: other tables inherit from it. Partitioned: its rows are in others. NoPolicy:
	// no policy lets the role, which is this one, insert rows.
	inherited, partitioned, noPolicy bool
	role                             string

	loaded  time.Time
	checked atomic.Pointer[time.Time] // the latest time at which it was known to be so

	constraints

	mu       sync.RWMutex
	shapes   map[string]*shape
	placings map[string]*placing
}

// column is one column and how its values travel.
type column struct {
	name     string
	oid      uint32 // the column's own type
	elemOID  uint32 // of the array's elements that values are sent in
	arrayOID uint32
	cast     string // to the column's type where values travel as text, else ""
	inKey    bool
	computed bool // by the database: it takes no values
	spelling spelling

	columnConstraints
}

// spelling says whether values of a type are equal only if their bytes are.
type spelling uint8

const (
	exact  spelling = iota
	normal          // appendNormal makes them so
	opaque          // only the server knows
)

const tableSQL = `
select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid), pg_catalog.format_type(a.atttypid, null), t.typtype = 'd', coalesce(array_position(k.conkey, a.attnum), 0),
  coalesce(b.typname, t.typname), coalesce(b.typtype, t.typtype) = 'e', coalesce(l.collisdeterministic, true),
  a.attgenerated <> '' or a.attidentity = 'a'
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_type b on b.oid = nullif(t.typbasetype, 0)
left join pg_catalog.pg_collation l on l.oid = a.attcollation
left join pg_catalog.pg_constraint k on k.conrelid = c.oid and k.contype = 'p'
where c.oid = $1::bigint::oid
order by a.attnum`

const foreignKeysSQL = `
select distinct conrelid, confrelid from pg_catalog.pg_constraint
where contype = 'f' and conrelid <> confrelid and conparentid = 0
order by conrelid, confrelid`

// get returns the table of that name, from memory or from the server. Its err is set if
// effects cannot be written to it.
func (c *catalog) get(ctx context.Context, s *session, name string) (*table, error) {
	c.mu.RLock()
	t := c.tables[name]
	c.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	return c.load(ctx, s, name)
}

// sessionStatements are the first words of statements that a function may not execute: they
// end the transaction of all events of the batch, or leave something behind on a connection
// that other events share, or wait for data.
var sessionStatements = map[string]bool{
	"abort": true, "begin": true, "commit": true, "copy": true, "deallocate": true, "discard": true, "end": true, "listen": true,
	"prepare": true, "release": true, "reset": true, "rollback": true, "savepoint": true, "set": true, "start": true, "unlisten": true,
}

// firstWord returns the first word of a statement, in lower case, behind blanks and comments.
func firstWord(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f\v;")
		switch {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			sql = sql[commentEnd(sql):]
		default:
			end := strings.IndexFunc(sql, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
			if end < 0 {
				end = len(sql)
			}
			return strings.ToLower(sql[:end])
		}
	}
}

// commentEnd returns the end of the comment that sql begins with. Comments may be nested.
func commentEnd(sql string) int {
	depth := 0
	for i := 0; i+1 < len(sql); i++ {
		switch sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(sql)
}

// statement returns what is known of a function's own statement. Its err is set if it cannot
// be executed.
func (c *catalog) statement(ctx context.Context, s *session, sql string) (*described, error) {
	c.mu.RLock()
	st := c.statements[sql]
	c.mu.RUnlock()
	if st != nil {
		return st, nil
	}
	if word := firstWord(sql); sessionStatements[word] {
		return nil, &Error{Fault: FaultFunction, Err: fmt.Errorf("the statement begins with %s: it acts on the transaction or the connection, which other events share", strings.ToUpper(word))}
	}
	st, err := s.describe(ctx, sql)
	var answer *statementError
	switch {
	case err == nil:
	case errors.As(err, &answer) && answer.effect && attributable(err):
		st = &described{sql: sql, err: refusal(answer), loaded: now()}
		st.checked.Store(&st.loaded)
	default:
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.statements == nil {
		c.statements = map[string]*described{}
	}
	c.statements[sql] = st
	return st, nil
}

// load looks a table up. It does so in a transaction, in which our timeouts hold.
func (c *catalog) load(ctx context.Context, s *session, name string) (*table, error) {
	if err := s.run(ctx, []step{{sql: beginSQL}, s.settings()}); err != nil {
		return nil, fmt.Errorf("look up table %s: %w", name, err)
	}
	defer s.rollback()
	t, err := loadTable(ctx, s.conn.Conn(), name)
	if err == nil {
		err = s.run(ctx, []step{{sql: commitSQL}})
	}
	if err != nil {
		var answer *pgconn.PgError
		if errors.As(err, &answer) {
			err = &statementError{err: answer, table: "the catalogs of the database"} // no function's
		}
		return nil, fmt.Errorf("look up table %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tables == nil {
		c.tables = map[string]*table{}
	}
	c.tables[name] = t
	return t, nil
}

// loadTable reads the catalogs of the database.
func loadTable(ctx context.Context, conn *pgx.Conn, name string) (*table, error) {
	t := &table{name: name, quoted: quoteName(name), byName: map[string]int{}, shapes: map[string]*shape{}, loaded: now()}
	t.checked.Store(&t.loaded)
	if err := t.loadRelation(ctx, conn); err != nil || t.err != nil { // first: the version is that of what comes
		return t, err
	}
	rows, err := conn.Query(ctx, tableSQL, pgx.QueryExecModeExec, t.oid)
	if err != nil {
		return nil, err
	}
	keyAt := map[int]int{}
	var col column
	var typeName, baseName string
	var domain, enum, deterministic bool
	var position int
	_, err = pgx.ForEachRow(rows, []any{
		&col.name, &col.oid, &typeName, &domain, &position, &baseName, &enum, &deterministic, &col.computed,
	}, func() error {
		col.inKey = position > 0
		col.elemOID, col.arrayOID, col.cast = transport(col.oid, typeName, domain)
		col.spelling = spellingOf(&col, baseName, enum, deterministic)
		if col.inKey {
			keyAt[position] = len(t.columns)
			t.loose = t.loose || col.spelling != exact
			t.opaque = t.opaque || col.spelling == opaque
		}
		t.byName[col.name] = len(t.columns)
		t.columns = append(t.columns, col)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, position := range slices.Sorted(maps.Keys(keyAt)) {
		t.key = append(t.key, keyAt[position])
	}
	if err := t.loadConstraints(ctx, conn); err != nil {
		return nil, err
	}
	t.rank, err = rankOf(ctx, conn, t.oid)
	return t, err
}

// rankOf is the length of the longest chain of foreign keys that leads from the
// table; an edge that closes a circle does not count.
func rankOf(ctx context.Context, conn *pgx.Conn, oid uint32) (int, error) {
	rows, err := conn.Query(ctx, foreignKeysSQL, pgx.QueryExecModeExec)
	if err != nil {
		return 0, err
	}
	parents := map[uint32][]uint32{}
	var child, parent uint32
	if _, err := pgx.ForEachRow(rows, []any{&child, &parent}, func() error {
		parents[child] = append(parents[child], parent)
		return nil
	}); err != nil {
		return 0, err
	}
	return rank(parents, oid, map[uint32]int{}), nil
}

func rank(parents map[uint32][]uint32, oid uint32, known map[uint32]int) int {
	if r, ok := known[oid]; ok {
		return r
	}
	known[oid] = 0 // while it is being found: closes circles
	highest := 0
	for _, parent := range parents[oid] {
		highest = max(highest, rank(parents, parent, known)+1)
	}
	known[oid] = highest
	return highest
}

// transport says in which array the values of a type are sent. Types whose
// binary form we know travel in an array of their own, others as text that the
// server casts.
func transport(oid uint32, typeName string, domain bool) (elem, array uint32, cast string) {
	if !domain {
		if array, ok := binaryArrays[oid]; ok {
			return oid, array, ""
		}
	}
	return pgtype.TextOID, pgtype.TextArrayOID, "::" + typeName
}

// spellingOf says in how many ways a value of a column can be spelled on its way
// to the server.
func spellingOf(col *column, baseName string, enum, deterministic bool) spelling {
	if !deterministic {
		return opaque
	}
	if col.cast == "" {
		switch col.oid {
		case pgtype.BPCharOID, pgtype.NumericOID, pgtype.Float4OID, pgtype.Float8OID:
			return normal
		case pgtype.JSONBOID, pgtype.JSONOID:
			return opaque
		}
		return exact
	}
	switch {
	case enum, col.oid == pgtype.TextOID, col.oid == pgtype.VarcharOID:
		return exact
	case baseName == "citext", col.oid == pgtype.BPCharOID:
		return normal
	}
	return opaque
}

// binaryArrays are the types that travel in binary, with their array types.
var binaryArrays = map[uint32]uint32{
	pgtype.BoolOID:        pgtype.BoolArrayOID,
	pgtype.ByteaOID:       pgtype.ByteaArrayOID,
	pgtype.Int2OID:        pgtype.Int2ArrayOID,
	pgtype.Int4OID:        pgtype.Int4ArrayOID,
	pgtype.Int8OID:        pgtype.Int8ArrayOID,
	pgtype.Float4OID:      pgtype.Float4ArrayOID,
	pgtype.Float8OID:      pgtype.Float8ArrayOID,
	pgtype.TextOID:        pgtype.TextArrayOID,
	pgtype.VarcharOID:     pgtype.VarcharArrayOID,
	pgtype.BPCharOID:      pgtype.BPCharArrayOID,
	pgtype.UUIDOID:        pgtype.UUIDArrayOID,
	pgtype.DateOID:        pgtype.DateArrayOID,
	pgtype.TimestampOID:   pgtype.TimestampArrayOID,
	pgtype.TimestamptzOID: pgtype.TimestamptzArrayOID,
	pgtype.NumericOID:     pgtype.NumericArrayOID,
	pgtype.JSONOID:        pgtype.JSONArrayOID,
	pgtype.JSONBOID:       pgtype.JSONBArrayOID,
}

// quoteName quotes a name, or a schema and a name with a dot between them.
func quoteName(name string) string {
	schema, rest, qualified := strings.Cut(name, ".")
	if !qualified {
		return quoteIdent(name)
	}
	return quoteIdent(schema) + "." + quoteIdent(rest)
}

func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
