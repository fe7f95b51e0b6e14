package functions

import "time"

// Row is a row of a table, or a part of one: column name to value. Values are
// what pgx can encode for the column's type: bool, integers, floats, string,
// []byte, time.Time, slices of these for arrays. A string is also taken as
// PostgreSQL would read it: a uuid, a date, a number with decimals. For json and
// jsonb a []byte or json.RawMessage is taken as it is, anything else is encoded
// by encoding/json. Times are stored in UTC. Nil is NULL.
type Row map[string]any

// Op is what a [Write] does.
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
)

// Write is one change. Make it with the methods of [Effects].
type Write struct {
	Op Op

	// Table is the table's name, "airports" or "travel.airports"; empty for
	// OpExec.
	Table string

	// Key are the columns of the primary key that address the row, for OpAdd
	// and the deletes; elsewhere they are in Row and Key is nil.
	Key Row

	// Row holds the columns that are written.
	Row Row

	// Version is the column that OpNewest and OpDeleteNewest compare.
	Version string

	// Statement and Args are what OpExec runs.
	Statement Statement
	Args      []any
}

// Rule says what an upsert does with a row that is there already. Make it with
// [FirstWins], [Replace] or [NewestWins].
type Rule struct {
	op      Op
	version string
}

// FirstWins keeps the row that is there.
func FirstWins() Rule { return Rule{op: OpInsert} }

// Replace writes the columns over the row that is there, whichever is newer:
// of two events the one that is applied later stays.
func Replace() Rule { return Rule{op: OpReplace} }

// NewestWins writes the columns over the row that is there if the value of the
// version column is greater, in whatever order the events are applied. If both
// are equal, the greater of the two rows, as PostgreSQL writes their columns as
// text, byte by byte, stays. A row without a version (NULL) is older than any.
//
// If the table has a boolean column "deleted", the row is there again for
// readers: it is set to false unless the row says otherwise.
func NewestWins(version string) Rule { return Rule{op: OpNewest, version: version} }

// Statement is an SQL statement that a function runs with [Effects.Exec].
type Statement struct {
	// Name is what errors and logs call it.
	Name string

	// SQL is one statement with parameters $1, $2 and so on. Never put values
	// into it.
	SQL string
}

// Version is the version that a delete has, for tables whose rows are kept by
// [NewestWins].
type Version struct {
	Column string
	Value  any
}

// Output is an event that the function wants to have emitted. Its source and id
// are derived from the function and the input's identity, so they are equal in
// every cluster.
type Output struct {
	// Type is the CloudEvent type. Required.
	Type string

	// Subject is the CloudEvent subject; empty for none.
	Subject string

	// Data is the payload. A []byte or json.RawMessage is taken as it is, nil
	// is no data, anything else is encoded as JSON.
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

// Effects is what one event should have as its consequence: writes and outputs,
// committed together or not at all. The zero Effects does nothing and is
// recorded like any other. Not for concurrent use.
//
// Rows are addressed by their table's primary key, which every table must have.
// Two writes of one event on the same row are applied in the order given, and
// statements after the writes of their event. Between events there is no order.
type Effects struct {
	Writes  []Write
	Outputs []Output
}

// Insert adds a row unless one with its primary key is there: the first write
// wins, a later one changes nothing.
func (fx *Effects) Insert(table string, row Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpInsert, Table: table, Row: row})
}

// Upsert adds a row, or does what the rule says if one with its primary key is
// there. Columns that are not in row are left as they are.
func (fx *Effects) Upsert(table string, row Row, rule Rule) {
	fx.Writes = append(fx.Writes, Write{Op: rule.op, Table: table, Row: row, Version: rule.version})
}

// Add adds to the counters of one row, which is made if it is missing, as if
// every counter in it had been zero. Key addresses it by its primary key;
// amounts are integers or floats, negative ones subtract.
func (fx *Effects) Add(table string, key, amounts Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpAdd, Table: table, Key: key, Row: amounts})
}

// Delete removes the row with that primary key, if it is there.
//
// With a version it is a write like any other under [NewestWins]: the row stays
// and its boolean column "deleted", which the table must have, is set to true,
// so that an older write that comes later does not bring the row back. A delete
// may be the first that is heard of a row, so the other columns need a default or
// must allow NULL. Readers leave out what is deleted. At most one version.
func (fx *Effects) Delete(table string, key Row, version ...Version) {
	if len(version) == 0 {
		fx.Writes = append(fx.Writes, Write{Op: OpDelete, Table: table, Key: key})
		return
	}
	v := version[0]
	fx.Writes = append(fx.Writes, Write{Op: OpDeleteNewest, Table: table, Key: key, Row: Row{v.Column: v.Value}, Version: v.Column})
}

// Exec runs a statement of the function's own, for what depends on rows that
// the function cannot see: an insert from a select, a conditional update. It
// runs in the transaction that holds the claim, after all writes of its event.
// Args are its parameters, in the types that Row takes.
//
// It costs a statement an event. The statements of events that are committed
// together run in the order of their names and then of their arguments, so put
// what is locked into $1: then rows are locked in one order. Otherwise there may be
// a deadlock, which is tried again.
func (fx *Effects) Exec(statement Statement, args ...any) {
	fx.Writes = append(fx.Writes, Write{Op: OpExec, Statement: statement, Args: args})
}

// Emit sends an event out, after the commit and at least once, always with the
// same source and id.
func (fx *Effects) Emit(o Output) {
	fx.Outputs = append(fx.Outputs, o)
}
