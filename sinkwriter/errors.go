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

// Fault classifies the cause of an error, and so determines what to do about the
// event.
type Fault uint8

// The faults. The zero Fault is none of them.
const (
	// FaultTransient: the database is unavailable, busy or read-only, or the
	// deadline passed. The same offer can succeed later. It does not count as
	// an attempt.
	FaultTransient Fault = iota + 1

	// FaultDeployment: a table, column, function or permission is missing. The
	// same offer succeeds after the migration. It does not count as an attempt.
	FaultDeployment

	// FaultOrder: a referenced row does not exist (23503), or a row that is
	// deleted is still referenced (23503, 23001). Another event may change
	// that, so the event is retried, a limited number of times.
	FaultOrder

	// FaultFunction: the function produced effects that no input makes valid, such as
	// an output without a type. Or the statements of this event fail repeatedly, alone,
	// or take longer than Config.CommitTimeout, while other events of the function are
	// committed. It counts as an attempt.
	FaultFunction

	// FaultEvent: the event's data do not fit the table. A retry cannot succeed.
	FaultEvent
)

// String returns the fault's name in logs and metrics.
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

// Error is the reason why an offer was not committed. Nothing of the offer is
// in the database, unless the outcome is unknown because the deadline passed
// during COMMIT. It is always safe to offer the event again.
//
// errors.As finds a [functions.RejectError] in it if and only if Fault is
// FaultEvent.
type Error struct {
	Fault    Fault
	Function string

	// Table, Column and Constraint are the objects that PostgreSQL or the
	// catalog reported; empty if there is none.
	Table, Column, Constraint string

	// Err is the cause.
	Err error

	// code is the SQLSTATE of a missing object.
	code string
}

// Error returns the function, table, column and constraint, and the cause.
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

// Unwrap returns the cause, as a [functions.RejectError] if Fault is FaultEvent.
func (e *Error) Unwrap() error {
	if e.Fault == FaultEvent {
		return functions.Reject(e.Err)
	}
	return e.Err
}

// Fingerprint identifies, for FaultDeployment, the missing object: the SQLSTATE, and the
// table with the column or the constraint if they are known, such as "42703 flights.gate".
// It is equal for all events that the same migration would help. For other faults it is
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

// ErrBacklog means that too many outputs wait to be published, because the
// stream is unavailable or too slow.
var ErrBacklog = errors.New("too many outputs wait in the outbox to be published")

// ErrClosed means that the writer was closed before the offer was committed.
var ErrClosed = errors.New("the writer is closed")

// offerError is an error that one particular offer of a batch caused.
type offerError struct {
	offer *offer
	err   *Error
}

func (e *offerError) Error() string { return e.err.Error() }
func (e *offerError) Unwrap() error { return e.err }

// statementError is the server's answer to one statement of a batch.
type statementError struct {
	err         *pgconn.PgError
	table       string // of the statement, because the server does not always report it
	partitioned bool   // whether the table is partitioned
	effect      bool   // it is a statement of a function, not the writer's own
	guard       bool   // it fails if the tables have changed
	plain       *shape // it fails if one of the rows of this shape exists
	offer       *offer // the offer of the statement; nil if it serves many offers
}

func (e *statementError) Error() string { return e.err.Error() }
func (e *statementError) Unwrap() error { return e.err }

// effectsError is an error while the effects of a batch were applied: the server's answer
// to a statement, a lost connection, or a deadline. Each of these may be caused by one
// event.
type effectsError struct{ err error }

func (e *effectsError) Error() string { return e.err.Error() }
func (e *effectsError) Unwrap() error { return e.err }

// definedClasses are the classes of SQLSTATE that PostgreSQL defines (appendix A of its
// manual), without those that concern events.
var definedClasses = map[string]bool{
	"00": true, "01": true, "02": true, "03": true, "08": true, "09": true, "0A": true, "0B": true, "0F": true, "0L": true, "0P": true, "0Z": true,
	"10": true, "20": true, "24": true, "25": true, "26": true, "27": true, "28": true, "2B": true, "2D": true, "2F": true, "34": true, "38": true,
	"39": true, "3B": true, "3D": true, "3F": true, "40": true, "42": true, "53": true, "55": true, "57": true, "58": true, "72": true, "F0": true,
	"HV": true, "XX": true,
}

// faultOf classifies the server's answer to a statement of a function by its SQLSTATE.
//
// Here FaultFunction is a suspicion: a statement that fails for one event only and a
// broken database have the same SQLSTATE. [Writer.suspect] decides.
func faultOf(err *pgconn.PgError) Fault {
	if raised(err) {
		return faultOfRaise(err)
	}
	switch err.Code {
	case "42P01", "42703", "42883", "3F000", "42804", "42P10", "42P18", "42704", "0A000", "2200H":
		return FaultDeployment
	case "42501":
		if err.Routine == "ExecWithCheckOptions" { // a row-level security policy, not a missing grant
			return FaultEvent
		}
		return FaultDeployment
	case "42601": // of a value or, with a position, of a statement in a database function
		if err.Position != 0 || err.InternalPosition != 0 {
			return FaultDeployment
		}
		return FaultEvent
	case "428C9": // a value for a generated column
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
			"mdextend", "mdzeroextend", "asyncQueueAddEntries", "PreCommit_Notify": // a table or the queue of NOTIFY cannot grow
			return FaultTransient
		}
		return FaultEvent
	// A statement timeout; a message that does not fit its statement; no transaction
	// allowed.
	case "57014", "08P01", "25001":
		return FaultFunction
	case "55P03", "55006", "25006", "26000", "42P05", "XX001", "XX002":
		// A lock or an object in use, a failover, our prepared statements, corrupt data.
		return FaultTransient
	}
	switch class := err.Code[:min(2, len(err.Code))]; class {
	case "22", "23", "21", "P0", "44", "54": // 54: a row or index entry is too long
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
		return FaultEvent // raised by a database function, for this event
	}
}

// faultOfRaise classifies an error that a database function raises. It concerns the
// event, unless the author chose the code of an outage or of a missing object. Whether
// the event is the cause is certain once other events are committed.
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

// raised reports whether RAISE in a PL/pgSQL function is the source of the error. Then
// it is not an outage, whatever its SQLSTATE.
func raised(err *pgconn.PgError) bool { return err.Routine == "exec_stmt_raise" }

// asError returns the Error for err, which the only offer of a batch caused.
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
		e.Fault = FaultDeployment // a migration added the column
	}
	return e
}

// writes reports whether the function writes the column that pg is about: with a write to the
// table of the failed statement, or with a statement of its own that mentions the column.
// Triggers write other tables.
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

// writesColumn reports whether a row has the column. If the server does not report the
// column, as for a domain, it reports whether the row has a NULL.
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

// mentions reports whether a name occurs in a statement as a whole word.
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

// attributable reports whether an offer's content caused err, so that the other
// offers of its batch may be committed without it.
func attributable(err error) bool {
	var known *Error
	if errors.As(err, &known) {
		return known.Fault != FaultTransient
	}
	var statement *statementError
	if errors.As(err, &statement) && !statement.effect {
		return false // the content of an event does not make our own statements fail
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

// ordered reports whether the order into which an offer's writes were sorted, and
// not their content, may have caused err.
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
