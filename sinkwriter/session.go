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

// step is one statement of a round trip. Results are in binary.
type step struct {
	sql         string
	oids        []uint32 // of the parameters
	params      [][]byte
	formats     []int16               // of the parameters; nil: all binary
	table       string                // what it writes, for errors; may be empty
	partitioned bool                  // that table is
	effect      bool                  // it is a function's, not one of ours
	guard       bool                  // it fails if the tables have changed
	offer       *offer                // whose statement it is; nil if it is one of many offers
	row         func(values [][]byte) // called for each row of the result; may be nil

	// affected is called with the number of rows that were written; may be nil.
	affected func(rows int64)
}

// session is a connection while a batch has it.
type session struct {
	conn  *pgxpool.Conn
	pg    *pgconn.PgConn // conn's
	state *sessionState
	left  bool // somebody else has the connection

	// Of this writer; the claim timeout is the configured one and a round trip.
	claimTimeout, commitTimeout time.Duration

	trip time.Duration // when it was acquired
}

// sessionState is what we know of a connection for as long as it lives.
type sessionState struct {
	named    bool                // whether statements may be prepared by name
	prepared map[string]prepared // by SQL
	writers  map[int64]bool      // rows of tandem.writer that were seen
	settings string              // settingsSQL for the server's version
	id       int32               // of the marks of its transactions
	since    time.Time           // its first batch
	trip     time.Duration       // there and back
	scratch  scratch             // of the attempt that has the connection
}

// prepared is a statement that the server keeps, and the types of its parameters.
type prepared struct {
	name string
	oids []uint32
}

const (
	stateKey = "tandem"

	// maxPrepared bounds the statements kept on a connection; beyond it they are
	// parsed each time. A function with a handful of shapes needs a dozen.
	maxPrepared = 512

	// youngConnection is the age up to which a connection is not replaced after an error
	// that an outdated plan may cause, and the statements of an event too.
	youngConnection = time.Second
)

// connectTimeOf returns how long all hosts but one may be tried.
func connectTimeOf(cfg *pgx.ConnConfig) time.Duration {
	hosts := map[string]bool{net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))): true}
	for _, f := range cfg.Fallbacks {
		hosts[net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port)))] = true
	}
	return time.Duration(len(hosts)-1) * cfg.ConnectTimeout
}

// acquire returns a session on a connection of the pool. Of a new connection it measures the
// way to the server.
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
	// settingsSQL sets the timeouts of one transaction: the claim timeout, a half of it, and the
	// commit timeout. They are set in the transaction and not on the role, so that nothing else
	// that uses the role is touched, and so that a pooler in transaction mode is no obstacle. Nor
	// are they set on the connection, which other writers may use. It also marks the transaction as
	// Tandem's own, with a number (package mark). Nothing is compiled: the planner takes a look-up in
	// the catalogs for a long statement, and its compilation took 230 ms for a statement of 0.5 ms.
	settingsSQL = `select set_config('lock_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $1, true),
set_config('client_connection_check_interval', $2, true), set_config('statement_timeout', $3, true), set_config('jit', 'off', true),
pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, $4),
` + pinnedSettings

	// pinnedSettings sets what decides which value a text is, and which text a value is, and so
	// whether a row is equal in every cluster and which one of a tie is the newest. A role, a
	// database or a connection string may have other settings.
	pinnedSettings = `set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true), set_config('array_nulls', 'on', true),
set_config('lc_monetary', 'C', true), set_config('xmloption', 'content', true), set_config('xmlbinary', 'base64', true),
set_config('standard_conforming_strings', 'on', true), set_config('client_encoding', 'UTF8', true)`

	// settings17SQL does so on a server that can limit a transaction.
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

// readSettings returns the step that sets the timeouts of a transaction which only reads the
// catalogs. It holds up no other cluster, and has several round trips: with the claim timeout
// between two of them, a busy process would not get through.
func (s *session) readSettings() step {
	st := s.settings()
	st.params[0] = []byte(milliseconds(s.commitTimeout))
	return st
}

// milliseconds writes a time-out as the server reads it; never zero, which would
// be none.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(1, d.Milliseconds()), 10) + "ms"
}

// release gives the connection back; a broken one is closed by the pool.
func (s *session) release() {
	if !s.left {
		s.conn.Release()
	}
}

// abandon closes the connection, so that the server rolls back what is open.
func (s *session) abandon() {
	if s.left {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Hijack().Close(ctx) // it is gone either way
}

// describe asks the server for the types of a statement's parameters, and for the versions
// of the relations that it may name. It does so in a transaction, whose lock timeout holds
// if a table of the statement is locked. An error of the statement itself is a
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

// parameterTypes reads the types of a statement's parameters.
func (s *session) parameterTypes(ctx context.Context, oids []uint32) ([]*columnType, error) {
	known, err := loadTypes(ctx, s.conn.Conn(), slices.Clone(oids))
	if err != nil {
		var answer *pgconn.PgError
		if errors.As(err, &answer) {
			err = &statementError{err: answer, table: "the catalogs of the database"} // no function's
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
// carried out, and the error is that one's.
func (s *session) run(ctx context.Context, steps []step) error {
	pg := s.pg
	pipeline := pg.StartPipeline(ctx)
	defer pipeline.Close() //nolint:errcheck // its error is the one already returned

	fresh := map[string]prepared{} // being prepared in this round trip
	order := make([]int, 0, len(steps)+4)
	prepare := func(i int) (name string, known bool) {
		sql, oids := steps[i].sql, steps[i].oids
		p, known := fresh[sql]
		if !known {
			p, known = s.state.prepared[sql]
		}
		if known && slices.Equal(p.oids, oids) { // a migration may have changed them
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
	// The time that a statement may take begins when it is parsed, although its parameters
	// may still be on their way. Not before BEGIN, which sets the isolation level.
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
			failed = &statementError{err: answer, table: st.table, partitioned: st.partitioned, effect: st.effect, guard: st.guard, offer: st.offer}
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

// rollback ends the transaction; where that fails, the connection.
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
