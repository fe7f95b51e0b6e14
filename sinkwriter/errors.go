package sinkwriter

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

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
	// right, such as an output without a type.
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
	err   *pgconn.PgError
	table string // the statement's, since the server does not always name it
}

func (e *statementError) Error() string { return e.err.Error() }
func (e *statementError) Unwrap() error { return e.err }

// faultOf classifies an answer of the server by its SQLSTATE.
func faultOf(err *pgconn.PgError) Fault {
	switch err.Code {
	case "42P01", "42703", "42883", "3F000", "42501", "42804", "42P10", "42P18", "42704", "0A000":
		return FaultDeployment
	case "23503", "23001":
		return FaultOrder
	case "25006": // read-only after a failover
		return FaultTransient
	}
	switch err.Code[:min(2, len(err.Code))] {
	case "22", "23", "21", "P0", "44", "54": // 54: longer than an index or a row takes
		return FaultEvent
	case "42":
		return FaultDeployment
	}
	return FaultTransient
}

// asError says what a batch of one means for its offer.
func asError(function string, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return &Error{Fault: FaultTransient, Function: function, Err: err}
	}
	e := &Error{
		Fault: faultOf(pg), Function: function,
		Table: pg.TableName, Column: pg.ColumnName, Constraint: pg.ConstraintName,
		Err: err,
	}
	var statement *statementError
	if e.Table == "" && errors.As(err, &statement) {
		e.Table = statement.table
	}
	return e
}

// attributable reports whether err is about what an offer holds, so that the others
// of its batch may be committed without it.
func attributable(err error) bool {
	var known *Error
	if errors.As(err, &known) {
		return known.Fault != FaultTransient
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && faultOf(pg) != FaultTransient
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
