package sinkwriter

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// maxOutdated bounds consecutive attempts that are repeated because the schema
// changed.
const maxOutdated = 5

// errOutdated is the error of an attempt that relied on tables or statements that have
// changed since they were looked up.
var errOutdated = errors.New("the schema has changed since it was looked up")

// mayBeOutdated are the SQLSTATEs of a statement that the server prepared, or whose
// parameters it described, before a change of the schema.
var mayBeOutdated = map[string]bool{
	"0A000": true, "42704": true, "42883": true, "42804": true, "42P18": true, "22P03": true, "08P01": true, "XX000": true,
}

// outdated reports whether the tables or statements that a batch relied on may have changed
// and so caused err, and removes these from the catalog. The batch is then attempted again
// before any of its events is refused. Entries that were looked up after since are kept; the
// others are verified with one statement that reads the catalogs.
func (w *Writer) outdated(ctx context.Context, s *session, r *reliance, since time.Time, err error) bool {
	if s.left || s.conn.Conn().IsClosed() {
		return false
	}
	var answer *statementError
	var offending *offerError
	switch {
	case errors.As(err, &answer) && answer.guard:
		w.catalog.forget(r)
		return true
	case errors.As(err, &offending):
	case answer != nil && answer.effect && faultOf(answer.err) != FaultTransient:
	default:
		return false
	}
	if w.catalog.changed(ctx, s, r, since) {
		return true
	}
	if offending != nil || !mayBeOutdated[answer.err.Code] || raised(answer.err) || !s.state.since.Before(since) {
		return false
	}
	if (answer.err.Code == "08P01" || answer.err.Code == "XX000") && now().Sub(s.state.since) < youngConnection {
		return false // the cause is not an old entry
	}
	w.catalog.forget(&reliance{statements: r.statements})
	s.replace(ctx, w.config.ClaimTimeout)
	return true
}

// replace closes the connection, because a new one has no prepared statements.
func (s *session) replace(ctx context.Context, timeout time.Duration) {
	clear(s.state.prepared)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	_ = s.conn.Conn().Close(ctx)
}

// changed reports whether tables and statements that were looked up before since have
// changed, and removes them from the catalog. Refusals that are older than since are always
// removed.
func (c *catalog) changed(ctx context.Context, s *session, r *reliance, since time.Time) bool {
	old, gone := newReliance(), newReliance()
	for name, t := range r.tables {
		switch {
		case !t.checked.Load().Before(since):
		case t.err != nil:
			gone.tables[name] = t
		default:
			old.tables[name] = t
		}
	}
	for sql, st := range r.statements {
		switch {
		case !st.checked.Load().Before(since):
		case st.err != nil:
			gone.statements[sql] = st
		default:
			old.statements[sql] = st
		}
	}
	begin := now()
	if params, tables, statements := old.relations(); len(tables) > 0 {
		if err := s.run(ctx, []step{{sql: changedSQL, oids: relationOIDs, params: params, row: func(v [][]byte) {
			switch i := int(binary.BigEndian.Uint64(v[0])) - 1; {
			case i < 0 || i >= len(tables):
			case tables[i] != nil:
				gone.tables[tables[i].name] = tables[i]
			default:
				gone.statements[statements[i].sql] = statements[i]
			}
		}}}); err != nil {
			return true // without an answer nothing is refused
		}
	}
	for _, t := range old.tables {
		t.checked.Store(&begin)
	}
	for _, st := range old.statements {
		st.checked.Store(&begin)
	}
	c.forget(gone)
	return len(gone.tables)+len(gone.statements) > 0
}

// forget removes tables and statements from the catalog.
func (c *catalog) forget(r *reliance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, t := range r.tables {
		if c.tables[name] == t {
			delete(c.tables, name)
		}
	}
	for sql, st := range r.statements {
		if c.statements[sql] == st {
			delete(c.statements, sql)
		}
	}
}

// refusal returns the reason why a statement cannot be prepared. It applies to all events.
func refusal(err *statementError) *Error {
	known := asError(&offer{}, err)
	if known.Fault == FaultEvent {
		known.Fault = FaultDeployment
	}
	return known
}
