package functions

import "time"

// Row is a row of a table, or a part of one: column name to value. Values are those of [Plain]:
// bool, integers, floats, string, [encoding/json.Number], []byte, [time.Time], [time.Duration],
// slices of these for arrays, pointers to them, and types that have the methods of
// [database/sql/driver.Valuer] or [encoding.TextMarshaler]. Nil is NULL, of any type.
//
// A value is stored exactly, or the event is refused: nothing is rounded or truncated, except
// for times, which are stored in UTC and to the microsecond. PostgreSQL parses a string: as a
// uuid, a date, a number with decimals. For json and jsonb a []byte or
// [encoding/json.RawMessage] is a document; other values are encoded. docs/values.md lists the
// values that every type of column accepts.
type Row map[string]any

// Op is the operation of a [Write].
type Op uint8

// The operations. The zero Op is none of them.
const (
	OpInsert Op = iota + 1
	OpAdd
	OpReplace
	OpNewest
	OpDelete
	OpDeleteNewest
	OpExec
	OpOldest
	OpMax
	OpMin
)

// Write is one change. Create it with the methods of [Effects].
type Write struct {
	Op Op

	// Table is the table's name, "airports" or "travel.airports"; empty for
	// OpExec.
	Table string

	// Key holds the primary key of the row, for OpAdd and the deletes; otherwise it
	// is nil and the key is in Row.
	Key Row

	// Row holds the columns that are written.
	Row Row

	// Version is the column that OpNewest, OpOldest and OpDeleteNewest compare.
	Version string

	// Statement and Args belong to OpExec.
	Statement Statement
	Args      []any
}

// Rule resolves an upsert of a row that exists. Create it with [FirstWins], [Replace],
// [NewestWins], [OldestWins], [Max] or [Min].
//
// The result of the last four does not depend on the order in which events are applied, nor
// on how often, as long as all upserts of a row name the same columns. Text is compared byte
// by byte, whatever the collation of its column is, so that every server decides alike.
type Rule struct {
	op      Op
	version string
}

// FirstWins keeps the existing row.
func FirstWins() Rule { return Rule{op: OpInsert} }

// Replace overwrites the columns of the existing row, even if that row is newer:
// of two events, the one that is applied later wins.
func Replace() Rule { return Rule{op: OpReplace} }

// NewestWins overwrites the columns of the existing row if the value of the version
// column is greater, in whatever order events are applied. If both are equal, the
// greater of the two rows wins, compared byte by byte as PostgreSQL writes their columns
// as text. A row without a version (NULL) is older than any other.
//
// If the table has a boolean column "deleted", it is set to false unless the row sets
// it, so that a deleted row becomes visible again. If the versions are equal, a deleted
// row wins.
func NewestWins(version string) Rule { return Rule{op: OpNewest, version: version} }

// OldestWins overwrites the columns of the existing row if the value of the version column
// is less, in whatever order events are applied: the earliest version is kept. If both are
// equal, the greater of the two rows wins, as for [NewestWins]. A row without a version
// (NULL) is newer than any other. A column "deleted" has no special meaning.
func OldestWins(version string) Rule { return Rule{op: OpOldest, version: version} }

// Max keeps, for each column, the greater of the existing value and that of the row. Any
// value is greater than NULL. Of two equal values with different text, such as the
// numeric values 1.0 and 1.00, the one whose text is greater is kept.
func Max() Rule { return Rule{op: OpMax} }

// Min keeps, for each column, the lesser of the existing value and that of the row. Any
// value is less than NULL. Of two equal values with different text, the one whose text is
// greater is kept.
func Min() Rule { return Rule{op: OpMin} }

// Statement is an SQL statement for [Effects.Exec].
type Statement struct {
	// Name identifies it in errors and logs.
	Name string

	// SQL is one statement with parameters $1, $2 and so on. Never put values
	// into it. It must act on rows: COMMIT, SET and the like are refused.
	SQL string
}

// Version is the version of a delete, for tables whose rows are kept by [NewestWins].
type Version struct {
	Column string
	Value  any
}

// Output is an event that a function emits. Its source and id are derived from the
// function and the input's identity, so they are equal in every cluster.
type Output struct {
	// Type is the CloudEvent type. Required.
	Type string

	// Subject is the CloudEvent subject; empty for none.
	Subject string

	// Data is the payload. A []byte or json.RawMessage is used unchanged, nil
	// means no data, and other values are encoded as JSON.
	Data any

	// DataContentType is the media type of Data. Defaults to application/json
	// if there is Data.
	DataContentType string

	// Time is the CloudEvent time. Defaults to [Time] of the input.
	Time time.Time

	// Extensions are CloudEvent extension attributes: lower-case letters and
	// digits in names, string values.
	Extensions map[string]string
}

// Effects are the consequences of one event: writes and outputs, committed together or
// not at all. The zero Effects has none and is recorded like any other. It is not safe
// for concurrent use.
//
// Rows are addressed by their table's primary key, which every table must have. Two
// writes of one event to the same row are applied in their order, and statements after
// the writes of their event. Events are unordered.
type Effects struct {
	Writes  []Write
	Outputs []Output
}

// Insert adds a row unless one with its primary key exists: the first write wins, later
// ones change nothing.
func (fx *Effects) Insert(table string, row Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpInsert, Table: table, Row: row})
}

// Upsert adds a row, or applies the rule if one with its primary key exists. Columns
// that are not in row are not changed.
func (fx *Effects) Upsert(table string, row Row, rule Rule) {
	fx.Writes = append(fx.Writes, Write{Op: rule.op, Table: table, Row: row, Version: rule.version})
}

// Add adds amounts to the counters of one row, which is created with counters at zero
// if it is missing. Key is the row's primary key; amounts are integers or floats,
// negative ones subtract.
func (fx *Effects) Add(table string, key, amounts Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpAdd, Table: table, Key: key, Row: amounts})
}

// Delete removes the row with that primary key, if it exists.
//
// With a version the delete is a write like any other under [NewestWins]: the row
// stays, and its boolean column "deleted", which the table must have, is set to true,
// so that an older write that is applied later does not restore the row. A delete may
// be the first event of a row, so the other columns need a default or must allow NULL.
// Queries must filter out deleted rows. Pass at most one version.
func (fx *Effects) Delete(table string, key Row, version ...Version) {
	if len(version) == 0 {
		fx.Writes = append(fx.Writes, Write{Op: OpDelete, Table: table, Key: key})
		return
	}
	v := version[0]
	fx.Writes = append(fx.Writes, Write{Op: OpDeleteNewest, Table: table, Key: key, Row: Row{v.Column: v.Value}, Version: v.Column})
}

// Exec executes a statement of the function's own, for changes that depend on rows the
// function cannot see: an insert from a select, a conditional update. It runs in the
// transaction that holds the claim, after all writes of its event. Args are its
// parameters, of the types that Row accepts.
//
// It costs one statement per event. Statements of events that are committed together
// run in the order of their names and then of their arguments. So pass the key of the
// rows that it locks as $1: then rows are locked in one order. Otherwise deadlocks are
// possible; they are retried.
func (fx *Effects) Exec(statement Statement, args ...any) {
	fx.Writes = append(fx.Writes, Write{Op: OpExec, Statement: statement, Args: args})
}

// Emit publishes an event after the commit, at least once, always with the same source
// and id.
func (fx *Effects) Emit(o Output) {
	fx.Outputs = append(fx.Outputs, o)
}
