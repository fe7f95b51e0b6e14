package sinkwriter

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/sinkwriter/internal/mark"
)

// step is one statement of a round trip. Results are in the binary format.
type step struct {
	sql         string
	oids        []uint32 // of the parameters
	params      [][]byte
	formats     []int16               // of the parameters; nil means binary
	table       string                // that it writes to, for errors; may be empty
	partitioned bool                  // whether the table is partitioned
	effect      bool                  // it is a statement of a function, not the writer's own
	guard       bool                  // it fails if the tables have changed
	plain       *shape                // it fails if one of the rows of this shape exists
	offer       *offer                // the offer of the statement; nil if it serves many offers
	row         func(values [][]byte) // called for each row of the result; may be nil

	// affected is called with the number of rows that were written; may be nil.
	affected func(rows int64)
}

// session is a connection while a batch uses it.
type session struct {
	conn  *pgxpool.Conn
	pg    *pgconn.PgConn // of conn
	state *sessionState
	left  bool // another goroutine owns the connection

	// Of this writer; claimTimeout is the configured one plus a round trip.
	claimTimeout, commitTimeout time.Duration

	trip time.Duration // the round trip when the session was acquired
}

// sessionState is what we know of a connection. It lives as long as the
// connection.
type sessionState struct {
	named    bool                // whether statements may be prepared by name
	prepared map[string]prepared // by SQL
	writers  map[int64]bool      // rows of tandem.writer that are known to exist
	settings string              // settingsSQL for the server's version
	id       int32               // identifies the connection in the marks of its transactions
	since    time.Time           // the time of its first batch
	trip     time.Duration       // the round trip
	scratch  scratch             // of the attempt that has the connection
}

// prepared is a statement that the server has prepared, and the types of its
// parameters.
type prepared struct {
	name string
	oids []uint32
}

const (
	stateKey = "tandem"

	// maxPrepared bounds the prepared statements of a connection; further
	// statements are parsed each time. A function with a handful of shapes needs
	// a dozen.
	maxPrepared = 512

	// youngConnection is the age below which a connection is not replaced after an error
	// that may have two causes: an outdated plan, or the statements of an event.
	youngConnection = time.Second
)

// connectTimeOf returns how long trying all hosts but one may take.
func connectTimeOf(cfg *pgx.ConnConfig) time.Duration {
	hosts := map[string]bool{net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))): true}
	for _, f := range cfg.Fallbacks {
		hosts[net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))] = true
	}
	return time.Duration(len(hosts)-1) * cfg.ConnectTimeout
}

// acquire returns a session on a connection of the pool. On a new connection it measures the
// link to the server.
func (w *Writer) acquire(ctx context.Context) (*session, error) {
	conn, err := w.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("get a database connection: %w", err)
	}
	custom := conn.Conn().PgConn().CustomData()
	state, ok := custom[stateKey].(*sessionState)
	if !ok {
		mode := conn.Conn().Config().DefaultQueryExecMode
		state = &sessionState{
			named:    mode == pgx.QueryExecModeCacheStatement,
			prepared: map[string]prepared{},
			writers:  map[int64]bool{},
			since:    now(),
			settings: settingsOf(conn.Conn().PgConn().ParameterStatus("server_version")),
			id:       rand.Int32N(math.MaxInt32),
		}
		custom[stateKey] = state
	}
	s := &session{conn: conn, pg: conn.Conn().PgConn(), state: state}
	state.scratch.reset()
	if !ok || w.distance.due(w.config.BatchBytes, w.config.ClaimTimeout) {
		if err := w.measure(ctx, s); err != nil {
			s.abandon()
			return nil, fmt.Errorf("measure the way to the database: %w", err)
		}
	}
	s.trip = state.trip
	s.claimTimeout, s.commitTimeout = w.config.ClaimTimeout+s.trip, w.config.CommitTimeout
	return s, nil
}

const (
	// settingsSQL sets the timeouts of one transaction: the claim timeout, half of it, and the
	// commit timeout. They are set in the transaction and not on the role, so that other uses
	// of the role are not affected and a pooler in transaction mode works. They are not set on
	// the connection, because other writers may use it. The statement also marks the
	// transaction as Tandem's, with a number (package mark). JIT is off: the planner
	// overestimates lookups in the catalogs, and compiling a statement of 0.5 ms took 230 ms.
	settingsSQL = `select set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
set_config('client_connection_check_interval', $2, true), set_config('statement_timeout', $3, true), set_config('jit', 'off', true),
pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, $4),
` + pinnedSettings

	// pinnedSettings sets everything that determines how text is converted to values and back,
	// and so whether a row is equal in every cluster and which of two equal versions is kept. A
	// role, a database or a connection string may set other values.
	pinnedSettings = `set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true), set_config('array_nulls', 'on', true),
set_config('lc_monetary', 'C', true), set_config('xmloption', 'content', true), set_config('xmlbinary', 'base64', true),
set_config('standard_conforming_strings', 'on', true), set_config('client_encoding', 'UTF8', true)`

	// settings17SQL does the same on a server that supports transaction_timeout.
	settings17SQL = settingsSQL + `, set_config('transaction_timeout', $3, true)`
)

// settingsOf returns the statement for a version of the server.
func settingsOf(serverVersion string) string {
	major, _, _ := strings.Cut(serverVersion, ".")
	if v, err := strconv.Atoi(major); err == nil && v >= 17 {
		return settings17SQL
	}
	return settingsSQL
}

// mark returns the number of the mark of the session's transactions.
func (s *session) mark() int32 { return mark.Number(s.state.id, s.trip) }

// settings returns the step that sets the timeouts of the transaction.
func (s *session) settings() step {
	return step{
		sql:  s.state.settings,
		oids: []uint32{pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.Int4OID},
		params: [][]byte{
			[]byte(milliseconds(s.claimTimeout)), []byte(milliseconds(s.claimTimeout / 2)), []byte(milliseconds(s.commitTimeout)),
			binary.BigEndian.AppendUint32(nil, uint32(s.mark())),
		},
	}
}

// readSettings returns the step that sets the timeouts of a transaction that only reads the
// catalogs. Such a transaction blocks no other cluster and has several round trips: with the
// claim timeout between two of them, a busy process would not finish it.
func (s *session) readSettings() step {
	st := s.settings()
	st.params[0] = []byte(milliseconds(s.commitTimeout))
	return st
}

// milliseconds formats a timeout for the server. The result is never zero, which
// would disable the timeout.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}

// release returns the connection to the pool, which closes a broken one.
func (s *session) release() {
	if !s.left {
		s.conn.Release()
	}
}

// abandon closes the connection, so that the server rolls back an open
// transaction.
func (s *session) abandon() {
	if s.left {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Hijack().Close(ctx) // the connection is closed in either case
}

// describe asks the server for the types of a statement's parameters, and for the versions
// of the relations that it may reference. It runs in a transaction, whose lock timeout
// applies if a table of the statement is locked. An error of the statement itself is a
// [statementError] whose effect is true.
func (s *session) describe(ctx context.Context, sql string) (*described, error) {
	st := &described{sql: sql, loaded: now()}
	st.checked.Store(&st.loaded)
	if err := s.run(ctx, []step{{sql: beginSQL}, s.settings(), {
		sql: namedSQL, oids: []uint32{pgtype.TextOID}, params: [][]byte{[]byte(sql)},
		row: func(v [][]byte) {
			version, columns := int64(binary.BigEndian.Uint64(v[1])), int64(binary.BigEndian.Uint64(v[2]))
			st.relations = append(st.relations, relation{oid: binary.BigEndian.Uint32(v[0]), version: version, columnsVersion: columns})
		},
	}}); err != nil {
		return nil, err
	}
	defer s.rollback()
	d, err := s.conn.Conn().PgConn().Prepare(ctx, "", sql, nil)
	var answer *pgconn.PgError
	switch {
	case err == nil:
		st.oids = d.ParamOIDs
		if st.types, err = s.parameterTypes(ctx, st.oids); err == nil {
			err = s.run(ctx, []step{{sql: commitSQL}})
		}
	case errors.As(err, &answer) && !s.conn.Conn().IsClosed():
		return nil, &statementError{err: answer, effect: true}
	}
	return st, err
}

// parameterTypes loads the types of a statement's parameters.
func (s *session) parameterTypes(ctx context.Context, oids []uint32) ([]*columnType, error) {
	known, err := loadTypes(ctx, s.conn.Conn(), slices.Clone(oids))
	if err != nil {
		var answer *pgconn.PgError
		if errors.As(err, &answer) {
			err = &statementError{err: answer, table: "the catalogs of the database"} // not a statement of a function
		}
		return nil, fmt.Errorf("look up the types of a statement's parameters: %w", err)
	}
	types := make([]*columnType, len(oids))
	for i, oid := range oids {
		types[i] = known.typeOf(oid, -1)
	}
	return types, nil
}

var binaryFormat = []int16{pgtype.BinaryFormatCode}

// run sends the steps in one round trip. If one of them fails, the rest is not
// executed, and run returns the error of that step.
func (s *session) run(ctx context.Context, steps []step) error {
	pg := s.pg
	pipeline := pg.StartPipeline(ctx)
	defer pipeline.Close() //nolint:errcheck // its error is the one already returned

	fresh := map[string]prepared{} // prepared in this round trip
	order := make([]int, 0, len(steps)+4)
	prepare := func(i int) (name string, known bool) {
		sql, oids := steps[i].sql, steps[i].oids
		p, known := fresh[sql]
		if !known {
			p, known = s.state.prepared[sql]
		}
		if known && slices.Equal(p.oids, oids) { // a migration may have changed the types
			return p.name, true
		}
		if !s.state.named || len(s.state.prepared)+len(fresh) >= maxPrepared {
			return "", false
		}
		name = statementID(sql, oids)
		fresh[sql] = prepared{name, oids}
		pipeline.SendPrepare(name, sql, oids)
		order = append(order, -1-i)
		return name, true
	}
	// The statement timeout starts when the statement is parsed, even if its parameters
	// are still in transit. Not before BEGIN, which sets the isolation level.
	if s.pg.TxStatus() == 'T' {
		for i := range steps {
			prepare(i)
		}
	}
	for i := range steps {
		st := &steps[i]
		name, known := prepare(i)
		formats := st.formats
		if formats == nil {
			formats = binaryFormat
		}
		if known {
			pipeline.SendQueryPrepared(name, st.params, formats, binaryFormat)
		} else {
			pipeline.SendQueryParams(st.sql, st.params, st.oids, formats, binaryFormat)
		}
		order = append(order, i)
	}
	if err := pipeline.Sync(); err != nil {
		return err
	}

	var failed error
	for next := 0; ; next++ {
		result, err := pipeline.GetResults()
		var i int
		if next < len(order) {
			i = order[next]
		}
		if err == nil {
			switch r := result.(type) {
			case *pgconn.PipelineSync:
				return failed
			case *pgconn.StatementDescription:
				sql := steps[-1-i].sql
				s.state.prepared[sql] = fresh[sql]
				continue
			case *pgconn.ResultReader:
				err = readRows(r, &steps[i])
			case nil:
				return errors.Join(failed, errors.New("the server's answers ended before their end"))
			}
		}
		if err == nil {
			continue
		}
		var answer *pgconn.PgError
		if !errors.As(err, &answer) || pg.IsClosed() {
			return err
		}
		if failed == nil {
			if i < 0 {
				i = -1 - i
			}
			st := &steps[i]
			failed = &statementError{err: answer, table: st.table, partitioned: st.partitioned, effect: st.effect, guard: st.guard, plain: st.plain, offer: st.offer}
		}
	}
}

// statementID returns the name of a prepared statement.
func statementID(sql string, oids []uint32) string {
	hash := sha256.New()
	hash.Write([]byte(sql))
	for _, oid := range oids {
		hash.Write(binary.BigEndian.AppendUint32(nil, oid))
	}
	return "tandem_" + hex.EncodeToString(hash.Sum(nil)[:12])
}

func readRows(r *pgconn.ResultReader, st *step) error {
	if st.row != nil {
		for r.NextRow() {
			st.row(r.Values())
		}
	}
	tag, err := r.Close()
	if err == nil && st.affected != nil {
		st.affected(tag.RowsAffected())
	}
	return err
}

// rollback ends the transaction. If that fails, it closes the connection.
func (s *session) rollback() {
	pg := s.conn.Conn().PgConn()
	if pg.IsClosed() || pg.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.run(ctx, []step{{sql: "rollback"}}); err != nil {
		_ = pg.Close(ctx) // the server rolls back
	}
}
