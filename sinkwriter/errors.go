package sinkwriter

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandem-fn/tandem/functions"
)

// Fault says whose fault an error is, and so what to do about the event.
type Fault uint8

// The faults. The zero Fault is none of them.
const (
	// FaultTransient: the database is away, busy or read-only, or the
	// deadline passed. The same offer can succeed later; it counts against
	// nobody.
	FaultTransient Fault = iota + 1

	// FaultDeployment: a table, column, function or permission is missing. The
	// same offer succeeds once the migration has caught up; it does not count
	// against the event.
	FaultDeployment

	// FaultOrder: a row that this one refers to is not there (23503), or one
	// that goes is still referred to (23503, 23001). Another event may change
	// that, so it is tried again, but not for ever.
	FaultOrder

	// FaultFunction: the function asked for something that no event makes
	// right, such as an output without a type; or its statements fail for this event
	// again and again, alone, while other events of the function are committed, or take
	// longer than Config.CommitTimeout. It counts as an attempt.
	FaultFunction

	// FaultEvent: the event's data do not fit the table. It can never work.
	FaultEvent
)

// String names the fault for logs and metrics.
func (f Fault) String() string {
	switch f {
	case FaultTransient:
		return "surroundings"
	case FaultDeployment:
		return "deployment"
	case FaultOrder:
		return "order"
	case FaultFunction:
		return "function"
	case FaultEvent:
		return "event"
	}
	return "unknown"
}

// Error is why an offer was not committed. Nothing of it is in the database,
// unless the outcome is unknown because the deadline passed during COMMIT; to
// offer it again is right in every case.
//
// errors.As finds a [functions.RejectError] in it if, and only if, Fault is
// FaultEvent.
type Error struct {
	Fault    Fault
	Function string

	// Table, Column and Constraint are those that PostgreSQL or the catalog
	// named; empty where there is none.
	Table, Column, Constraint string

	// Err is the cause.
	Err error

	// code is the SQLSTATE of what the catalog lacks.
	code string
}

// Error names function, table, column and constraint, and the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("commit effects of function ")
	b.WriteString(e.Function)
	for _, part := range [...]struct{ what, name string }{
		{", table ", e.Table}, {", column ", e.Column}, {", constraint ", e.Constraint},
	} {
		if part.name != "" {
			b.WriteString(part.what)
			b.WriteString(part.name)
		}
	}
	fmt.Fprintf(&b, " (fault: %s): %v", e.Fault, e.Err)
	return b.String()
}

// Unwrap gives the cause, as a [functions.RejectError] if it is the event's.
func (e *Error) Unwrap() error {
	if e.Fault == FaultEvent {
		return functions.Reject(e.Err)
	}
	return e.Err
}

// Fingerprint identifies, for FaultDeployment, what is missing: the SQLSTATE, and the
// table with the column or the constraint if they are known, such as "42703 flights.gate".
// It is equal for all events that the same change would help. For other faults it is
// empty.
func (e *Error) Fingerprint() string {
	if e.Fault != FaultDeployment {
		return ""
	}
	code, what := e.code, e.Table
	if pg := (*pgconn.PgError)(nil); errors.As(e.Err, &pg) {
		code = pg.Code
	}
	if name := cmp.Or(e.Column, e.Constraint); name != "" {
		what += "." + name
	}
	return strings.TrimSpace(code + " " + what)
}

// ErrBacklog says that too many outputs wait to be published: the stream is away
// or too slow.
var ErrBacklog = errors.New("too many outputs wait in the outbox to be published")

// ErrClosed says that the writer was closed before the offer was committed.
var ErrClosed = errors.New("the writer is closed")

// offerError is an error that one offer of a batch is known to have caused.
type offerError struct {
	offer *offer
	err   *Error
}

func (e *offerError) Error() string { return e.err.Error() }
func (e *offerError) Unwrap() error { return e.err }

// statementError is what the server answered to one statement of a batch.
type statementError struct {
	err         *pgconn.PgError
	table       string // the statement's, since the server does not always name it
	partitioned bool   // that table is
	effect      bool   // the statement is a function's, not one of ours
	guard       bool   // the statement fails if the tables have changed
	offer       *offer // whose statement it is; nil if it is one of many offers
}

func (e *statementError) Error() string { return e.err.Error() }
func (e *statementError) Unwrap() error { return e.err }

// effectsError is an error while the effects of a batch were applied: an answer to one of
// the statements, a lost connection, or a deadline. Each may be the doing of one event.
type effectsError struct{ err error }

func (e *effectsError) Error() string { return e.err.Error() }
func (e *effectsError) Unwrap() error { return e.err }

// definedClasses are the classes of SQLSTATE that PostgreSQL defines (appendix A of its
// manual), beside those of events.
var definedClasses = map[string]bool{
	"00": true, "01": true, "02": true, "03": true, "08": true, "09": true, "0A": true, "0B": true, "0F": true, "0L": true, "0P": true, "0Z": true,
	"10": true, "20": true, "24": true, "25": true, "26": true, "27": true, "28": true, "2B": true, "2D": true, "2F": true, "34": true, "38": true,
	"39": true, "3B": true, "3D": true, "3F": true, "40": true, "42": true, "53": true, "55": true, "57": true, "58": true, "72": true, "F0": true,
	"HV": true, "XX": true,
}

// faultOf classifies the server's answer to a statement of a function by its SQLSTATE.
//
// FaultFunction is a suspicion here: a statement that fails for one event only, and a
// database that is broken, have the same SQLSTATE. [Writer.suspect] decides.
func faultOf(err *pgconn.PgError) Fault {
	if raised(err) {
		return faultOfRaise(err)
	}
	switch err.Code {
	case "42P01", "42703", "42883", "3F000", "42804", "42P10", "42P18", "42704", "0A000", "2200H":
		return FaultDeployment
	case "42501":
		if err.Routine == "ExecWithCheckOptions" { // a policy of rows, not a missing grant
			return FaultEvent
		}
		return FaultDeployment
	case "42601": // of a value, or, with a position, of a statement of a function of the database
		if err.Position != 0 || err.InternalPosition != 0 {
			return FaultDeployment
		}
		return FaultEvent
	case "428C9": // a value of a column that the database computes
		return FaultEvent
	case "22P02":
		if err.Routine == "enum_in" { // a later migration may add the label
			return FaultDeployment
		}
		return FaultEvent
	case "23514":
		if err.ConstraintName == "" { // no partition for the row
			return FaultDeployment
		}
		return FaultEvent
	case "23503", "23001":
		return FaultOrder
	case "54000":
		switch err.Routine {
		case "GetNewTransactionId", "GetNewMultiXactId", // the database has to be vacuumed
			"mdextend", "mdzeroextend", "asyncQueueAddEntries", "PreCommit_Notify": // a table, the queue of NOTIFY is full
			return FaultTransient
		}
		return FaultEvent
	// Statement timeout; a message that does not fit its statement; no transaction allowed.
	case "57014", "08P01", "25001":
		return FaultFunction
	case "55P03", "55006", "25006", "26000", "42P05", "XX001", "XX002":
		// A lock or an object in use, a failover, our prepared statements, corrupt data.
		return FaultTransient
	}
	switch class := err.Code[:min(2, len(err.Code))]; class {
	case "22", "23", "21", "P0", "44", "54": // 54: longer than an index or a row takes
		return FaultEvent
	case "42":
		return FaultDeployment
	case "25", "08", "28", "3D", "40", "53", "57", "58", "72", "F0", "HV":
		// Transactions, connections, logins, deadlocks, resources, shutdowns, files,
		// other servers: an outage.
		return FaultTransient
	default:
		if definedClasses[class] {
			return FaultFunction
		}
		return FaultEvent // raised by a function of the database, for this event
	}
}

// faultOfRaise classifies what a function of the database raises: it is about the event,
// unless the author chose a code of an outage or of a missing object. Whether that is the
// event, shows once others are committed.
func faultOfRaise(err *pgconn.PgError) Fault {
	switch class := err.Code[:min(2, len(err.Code))]; {
	case err.Code == "23503" || err.Code == "23001":
		return FaultOrder
	case definedClasses[class]:
		return FaultFunction
	default:
		return FaultEvent
	}
}

// raised reports whether an error is from RAISE in a PL/pgSQL function, and so no outage
// whatever its SQLSTATE is.
func raised(err *pgconn.PgError) bool { return err.Routine == "exec_stmt_raise" }

// asError returns what err means for the only offer of a batch.
func asError(o *offer, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &Error{Fault: FaultTransient, Function: o.function, Err: err}
	}
	e := &Error{
		Fault: faultOf(pg), Function: o.function,
		Table: pg.TableName, Column: pg.ColumnName, Constraint: pg.ConstraintName,
		Err: err,
	}
	var statement *statementError
	if errors.As(err, &statement) && e.Table == "" {
		e.Table = statement.table
	}
	if pg.Code == "23502" && !raised(pg) && !o.writes(statement, pg) {
		e.Fault = FaultDeployment // the column came with a migration
	}
	return e
}

// writes reports whether the function writes the column that pg is about: with a write to the
// table of the statement that failed, or with a statement of its own that names the column.
// Other tables are written by triggers.
func (o *offer) writes(failed *statementError, pg *pgconn.PgError) bool {
	if failed == nil {
		return true
	}
	for i := range o.effects.Writes {
		w := &o.effects.Writes[i]
		switch {
		case w.Op == functions.OpExec:
			if failed.table == statementName(&w.Statement) && mentions(w.Statement.SQL, pg.ColumnName) {
				return true
			}
		case w.Table != failed.table || !failed.partitioned && pg.TableName != "" && pg.TableName != baseName(w.Table):
		case writesColumn(w.Row, pg.ColumnName) || writesColumn(w.Key, pg.ColumnName):
			return true
		}
	}
	return false
}

// writesColumn reports whether a row has a column; a NULL, if the server does not name
// the column, as for a domain.
func writesColumn(row functions.Row, column string) bool {
	if column != "" {
		_, ok := row[column]
		return ok
	}
	for _, v := range row {
		if isNil(v) {
			return true
		}
	}
	return false
}

// mentions reports whether a name stands in a statement, as a whole word.
func mentions(sql, name string) bool {
	isWord := func(r rune) bool { return r == '_' || r == '$' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	return slices.ContainsFunc(strings.FieldsFunc(sql, func(r rune) bool { return !isWord(r) }), func(word string) bool { return strings.EqualFold(word, name) }) ||
		strings.ContainsFunc(name, func(r rune) bool { return !isWord(r) }) && strings.Contains(sql, name)
}

// baseName returns the name of a table without its schema.
func baseName(table string) string {
	if _, name, qualified := strings.Cut(table, "."); qualified {
		return name
	}
	return table
}

// attributable reports whether err is about what an offer holds, so that the others
// of its batch may be committed without it.
func attributable(err error) bool {
	var known *Error
	if errors.As(err, &known) {
		return known.Fault != FaultTransient
	}
	var statement *statementError
	if errors.As(err, &statement) && !statement.effect {
		return false // nothing of an event makes our own statements fail
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch faultOf(pg) {
	case FaultEvent, FaultOrder, FaultDeployment:
		return true
	default:
		return false
	}
}

// ordered reports whether err may come from the order that an offer's writes were
// brought into, and not from what they are.
func ordered(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "23505", "23503", "23001", "23P01", "21000":
		return true
	}
	return false
}
