package functions

import "time"

// Row is a row of a table, or a part of one: column name to value. Values are
// what pgx can encode for the column's type: bool, integers, floats, string,
// []byte, time.Time, slices of these for arrays, and for json and jsonb
// anything that encoding/json takes. Nil is NULL.
type Row map[string]any

// Op is what a [Write] does to its row.
type Op uint8

// The operations. The zero Op is none of them.
const (
	OpInsert Op = iota + 1
	OpAdd
)

// Write is one change of one row. Make it with the methods of [Effects].
type Write struct {
	Op Op

	// Table is the table's name, "airports" or "travel.airports".
	Table string

	// Key are the columns of the primary key that address the row; for
	// OpInsert they are in Row and Key is nil.
	Key Row

	// Row holds the columns that are written.
	Row Row
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

	// Time is the CloudEvent time. Defaults to the input's.
	Time time.Time

	// Extensions are CloudEvent extension attributes: lower-case letters and
	// digits in names, string values.
	Extensions map[string]string
}

// Effects is what one event should have as its consequence: writes and outputs,
// committed together or not at all. The zero Effects does nothing and is
// recorded like any other. Not for concurrent use.
type Effects struct {
	Writes  []Write
	Outputs []Output
}

// Insert adds a row unless one with its primary key is there: the first write
// wins, a later one changes nothing.
func (fx *Effects) Insert(table string, row Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpInsert, Table: table, Row: row})
}

// Add adds to the counters of one row, which is made if it is missing, as if
// every counter in it had been zero. Key addresses it by its primary key;
// amounts are integers or floats, negative ones subtract.
func (fx *Effects) Add(table string, key, amounts Row) {
	fx.Writes = append(fx.Writes, Write{Op: OpAdd, Table: table, Key: key, Row: amounts})
}

// Emit sends an event out, after the commit and at least once, always with the
// same source and id.
func (fx *Effects) Emit(o Output) {
	fx.Outputs = append(fx.Outputs, o)
}
