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
	oids      []uint32 // of its parameters
	types     []*columnType
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

	latest   atomic.Pointer[shape] // of a write
	mu       sync.RWMutex
	shapes   map[string]*shape
	placings map[string]*placing
}

// column is one column and how its values travel.
type column struct {
	name     string
	typ      *columnType
	oid      uint32 // of the type, or of its base if it is a domain
	elemOID  uint32 // of the array's elements that values are sent in
	arrayOID uint32
	text     bool   // values travel as the text that the server reads
	cast     string // to the column's type, or its base, if text is true, else ""
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
select a.attname, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod), coalesce(array_position(k.conkey, a.attnum), 0),
  coalesce(l.collisdeterministic, true), a.attgenerated <> '' or a.attidentity = 'a'
from pg_catalog.pg_class c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
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
	if err := s.run(ctx, []step{{sql: beginSQL}, s.readSettings()}); err != nil {
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
	type columnRow struct {
		name                    string
		oid                     uint32
		modifier                int32
		typeName                string
		position                int // in the primary key, from one
		deterministic, computed bool
	}
	var found []columnRow
	var types []uint32
	var r columnRow
	_, err = pgx.ForEachRow(rows, []any{&r.name, &r.oid, &r.modifier, &r.typeName, &r.position, &r.deterministic, &r.computed}, func() error {
		found, types = append(found, r), append(types, r.oid)
		return nil
	})
	if err != nil {
		return nil, err
	}
	known, err := loadTypes(ctx, conn, types)
	if err != nil {
		return nil, err
	}
	keyAt := map[int]int{}
	for _, r := range found {
		col := newColumn(r.name, known.typeOf(r.oid, r.modifier))
		col.typ.name = r.typeName
		col.inKey, col.computed = r.position > 0, r.computed
		col.spelling = spellingOf(&col, r.deterministic)
		if col.inKey {
			keyAt[r.position] = len(t.columns)
			t.loose = t.loose || col.spelling != exact
			t.opaque = t.opaque || col.spelling == opaque
		}
		t.byName[col.name] = len(t.columns)
		t.columns = append(t.columns, col)
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

// newColumn returns a column, with the array that the values of its type are sent in. Types
// whose binary form we know travel in an array of their own, others as text that the server
// casts.
func newColumn(name string, t *columnType) column {
	c := column{name: name, typ: t, oid: t.oid, elemOID: t.oid}
	var ok bool
	if c.arrayOID, ok = binaryArrays[t.oid]; !ok {
		c.text, c.elemOID, c.arrayOID = true, pgtype.TextOID, pgtype.TextArrayOID
	}
	if c.text {
		c.cast = "::" + t.cast
	}
	return c
}

// spellingOf says in how many ways a value of a column can be spelled on its way
// to the server.
func spellingOf(col *column, deterministic bool) spelling {
	if !deterministic {
		return opaque
	}
	switch col.typ.kind {
	case kindBPChar, kindNumeric, kindFloat4, kindFloat8:
		return normal
	case kindText:
		if col.text { // citext
			return normal
		}
		return exact
	case kindBool, kindInt2, kindInt4, kindInt8, kindVarchar, kindName, kindChar, kindBytea, kindUUID, kindDate, kindTimestamp, kindTimestamptz, kindEnum:
		return exact
	default:
		return opaque
	}
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
