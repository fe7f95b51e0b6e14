package sinkwriter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

const (
	// Not "read write": a standby refuses that as a feature it lacks, rather than
	// for being read-only.
	beginSQL  = "begin isolation level read committed"
	commitSQL = "commit"

	// The claim. Keys come sorted and from a plain unnest, which keeps their
	// order: two claims that overlap then wait for each other in one direction
	// only.
	claimSQL = `insert into tandem.ledger (key, digest, writer)
select k, d, w from unnest($1::uuid[], $2::bytea[], $3::bigint[]) as u(k, d, w)
on conflict (key) do nothing returning key`

	registerSQL = `insert into tandem.writer (writer, cluster, function, version)
values ($1, $2, $3, $4) on conflict do nothing`

	outboxInsertSQL = `insert into tandem.outbox (events) values ($1) returning id`
	outboxDeleteSQL = `delete from tandem.outbox where id = any($1::bigint[])`

	// Ends what holds locks and does not come back: backends of our own role
	// with a transaction id that have been waiting for their client for longer
	// than the claim timeout: to say something, in the middle of a statement or
	// between two, or to take an answer. And tells in how many milliseconds the
	// next of those that wait now will have done so.
	terminateSQL = `select count(*) filter (where case when remaining <= 0 then pg_catalog.pg_terminate_backend(pid) else false end),
  coalesce(min(remaining) filter (where remaining > 0), 0)
from (
  select pid, ceil(extract(epoch from state_change - pg_catalog.clock_timestamp()) * 1000)::bigint + $1::bigint as remaining
  from pg_catalog.pg_stat_activity
  where usename = current_user and datname = current_database() and pid <> pg_catalog.pg_backend_pid()
  and backend_xid is not null and wait_event in ('ClientRead', 'ClientWrite')
) as waiting`

	lockTimeoutSQL = `select pg_catalog.set_config('lock_timeout', $1, true)`
)

// attempt offers a batch once. Offers whose outcome is known are finished and
// taken out of the batch, whatever the error says; the ones that are left in it
// have left nothing in the database, unless the outcome of COMMIT is unknown.
// Batch is sorted by key, each key once.
//
// LockTimeout, if it is not zero, is for this attempt. Next is what the following
// one should have, so that it does not wait longer than it has to for somebody
// who is about to be ended.
func (w *Writer) attempt(ctx context.Context, batch []*offer, lockTimeout time.Duration) (left []*offer, next time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	s, err := acquire(ctx, w.pool, w.config.ClaimTimeout, w.config.CommitTimeout)
	if err != nil {
		return batch, 0, err
	}
	sound := false
	defer func() {
		switch {
		case sound:
			s.release()
		default: // a panic: nothing may stay claimed
			s.abandon()
		}
	}()
	left, err = w.transact(ctx, s, batch, lockTimeout)
	if err != nil {
		s.rollback()
		next = w.after(ctx, s, err)
	}
	sound = true
	return left, next, err
}

func (w *Writer) transact(ctx context.Context, s *session, batch []*offer, lockTimeout time.Duration) ([]*offer, error) {
	tables, statements, err := w.lookUp(ctx, s, batch)
	if err != nil {
		return batch, err
	}
	c, err := w.claim(ctx, s, batch, lockTimeout)
	if err != nil {
		return batch, err
	}
	if len(c.differences) > 0 {
		defer func() {
			s.rollback() // if it came to nothing
			if !s.conn.Conn().IsClosed() && s.conn.Conn().PgConn().TxStatus() == 'I' {
				w.record(ctx, s, c.differences, c.winners)
			}
			for _, d := range c.differences {
				d.offer.finish(result{receipt: Receipt{Key: d.offer.key, Diverged: c.diverged(d)}})
			}
		}()
	}
	if len(c.won) == 0 {
		// Nothing was written and everybody has their answer already: this only
		// ends the transaction, and if the connection is lost, that does too.
		_ = s.run(ctx, []step{{sql: commitSQL}})
		return nil, nil
	}
	row, events, err := w.apply(ctx, s, c.won, tables, statements)
	if err != nil {
		return c.won, err
	}
	for _, o := range c.won {
		if !s.state.writers[o.writer] {
			s.state.writers[o.writer] = true
		}
	}
	w.stats.won.Add(int64(len(c.won)))
	w.stats.batches.Add(1)
	for _, o := range c.won {
		o.finish(result{receipt: Receipt{Key: o.key, Won: true}})
	}
	if len(events) > 0 {
		w.outbox.committed(row, events)
	}
	return nil, nil
}

// lookUp finds out, before anything is claimed, about the tables and statements
// that a batch needs. Mostly both are in memory.
func (w *Writer) lookUp(ctx context.Context, s *session, batch []*offer) (map[string]*table, map[string][]uint32, error) {
	tables, statements := map[string]*table{}, map[string][]uint32{}
	for _, o := range batch {
		for i := range o.effects.Writes {
			write := &o.effects.Writes[i]
			var err error
			name := write.Table
			if write.Op == functions.OpExec {
				name = "(statement " + write.Statement.Name + ")"
				if _, ok := statements[write.Statement.SQL]; !ok {
					statements[write.Statement.SQL], err = w.catalog.parameters(ctx, s, write.Statement.SQL)
				}
			} else if tables[name] == nil {
				tables[name], err = w.catalog.get(ctx, s.conn.Conn(), name)
			}
			if err != nil && culpable(err) {
				return nil, nil, blame(o, name, asError(o.function, err))
			}
			if err != nil {
				return nil, nil, err
			}
		}
	}
	return tables, statements, nil
}

// claimed is what a claim found out.
type claimed struct {
	won         []*offer
	differences []difference
	winners     map[int64]winner
}

// diverged reports whether a difference is one between equal versions.
func (c *claimed) diverged(d difference) bool { return c.winners[d.writer].version == d.offer.version }

// claim enters the keys into the ledger and finishes the offers that lost.
func (w *Writer) claim(ctx context.Context, s *session, batch []*offer, lockTimeout time.Duration) (*claimed, error) {
	n := len(batch)
	steps := append([]step{{sql: beginSQL}, {sql: s.state.begin}}, w.outbox.measure()...)
	if lockTimeout > 0 {
		steps = append(steps, step{
			sql: lockTimeoutSQL, oids: []uint32{pgtype.TextOID}, params: [][]byte{[]byte(milliseconds(lockTimeout))},
		})
	}
	keys := appendArray(make([]byte, 0, 20+20*n), pgtype.UUIDOID, n, func(i int) ([]byte, bool) { return batch[i].key[:], false })
	digests := appendArray(make([]byte, 0, 20+20*n), pgtype.ByteaOID, n, func(i int) ([]byte, bool) { return batch[i].digest[:], false })
	var id [8]byte
	writers := appendArray(make([]byte, 0, 20+12*n), pgtype.Int8OID, n, func(i int) ([]byte, bool) {
		binary.BigEndian.PutUint64(id[:], uint64(batch[i].writer))
		return id[:], false
	})

	wonKeys := make([]bool, n)
	at := func(key []byte) int {
		i, ok := slices.BinarySearchFunc(batch, key, func(o *offer, key []byte) int { return bytes.Compare(o.key[:], key) })
		if !ok {
			return -1
		}
		return i
	}
	count := 0
	var differences []difference
	steps = append(steps,
		step{
			sql: claimSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID, pgtype.Int8ArrayOID},
			params: [][]byte{keys, digests, writers}, table: "tandem.ledger",
			row: func(v [][]byte) {
				if i := at(v[0]); i >= 0 && !wonKeys[i] {
					wonKeys[i] = true
					count++
				}
			},
		},
		step{
			sql: divergedSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID},
			params: [][]byte{keys, digests}, table: "tandem.ledger",
			row: func(v [][]byte) {
				if i := at(v[0]); i >= 0 {
					d := difference{offer: batch[i], writer: int64(binary.BigEndian.Uint64(v[1]))}
					copy(d.digest[:], v[2])
					differences = append(differences, d)
				}
			},
		})
	if err := s.run(ctx, steps); err != nil {
		return nil, err
	}

	c := &claimed{won: make([]*offer, 0, count), differences: differences}
	if len(differences) > 0 {
		var err error
		if c.winners, err = s.winners(ctx, differences); err != nil {
			return nil, err
		}
	}
	differs := map[*offer]bool{}
	for _, d := range differences {
		differs[d.offer] = true
	}
	for i, o := range batch {
		switch {
		case wonKeys[i]:
			c.won = append(c.won, o)
			continue
		case !differs[o]: // those are told once that is recorded
			o.finish(result{receipt: Receipt{Key: o.key}})
		}
		w.stats.lost.Add(1)
	}
	return c, nil
}

// register gives the steps that enter into tandem.writer whom the server has not
// heard of on this connection. Only who won is entered: who lost writes nothing.
func (w *Writer) register(s *session, won []*offer) []step {
	var steps []step
	var done []int64
	for _, o := range won {
		if s.state.writers[o.writer] || slices.Contains(done, o.writer) {
			continue
		}
		done = append(done, o.writer)
		steps = append(steps, step{
			sql:    registerSQL,
			oids:   []uint32{pgtype.Int8OID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID},
			params: [][]byte{int8Param(o.writer), []byte(w.config.Cluster), []byte(o.function), []byte(o.version)},
			table:  "tandem.writer",
		})
	}
	// In one order everywhere, as these rows may be new to others too.
	slices.SortFunc(steps, func(a, b step) int { return bytes.Compare(a.params[0], b.params[0]) })
	return steps
}

// apply sends the effects of the offers that were won, their outputs and COMMIT.
func (w *Writer) apply(ctx context.Context, s *session, won []*offer, tables map[string]*table, statements map[string][]uint32) (row int64, events []event.Event, err error) {
	var size int
	for _, o := range won {
		for i := range o.outputs {
			e, err := o.outputs[i].Event(o.function, o.event, i)
			if err != nil {
				return 0, nil, blame(o, "", &Error{Fault: FaultFunction, Err: err})
			}
			events = append(events, e)
		}
		size += o.size
	}
	p := plan{types: s.types(), arena: make([]byte, 0, size), asWritten: len(won) == 1 && won[0].asWritten}
	if err := p.build(won, tables, statements); err != nil {
		return 0, nil, err
	}
	steps := append(w.register(s, won), p.steps...)
	if len(events) > 0 {
		batch, err := cloudevent.AppendBatch(make([]byte, 0, size), events)
		if err != nil {
			return 0, nil, fmt.Errorf("encode outputs: %w", err)
		}
		steps = append(steps, step{
			sql: outboxInsertSQL, oids: []uint32{pgtype.TextOID}, params: [][]byte{batch}, table: "tandem.outbox",
			row: func(v [][]byte) { row = int64(binary.BigEndian.Uint64(v[0])) },
		})
	}
	published := w.outbox.takePublished()
	if len(published) > 0 {
		steps = append(steps, deleteStep(published))
	}
	if err := s.run(ctx, append(steps, step{sql: commitSQL})); err != nil {
		w.outbox.putBack(published)
		return 0, nil, err
	}
	return row, events, nil
}

// after does what an error asks for before the next attempt, and gives the lock
// timeout that it should have; zero for the usual one.
func (w *Writer) after(ctx context.Context, s *session, err error) (next time.Duration) {
	var known *Error
	if errors.As(err, &known) && known.Fault == FaultDeployment {
		w.catalog.forget() // the next try may find that a migration has run
	}
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return 0
	}
	switch answer.Code {
	case "55P03": // lock timeout: somebody hangs
		if s.conn.Conn().IsClosed() {
			return 0
		}
		var ended, remaining int64
		if err := s.run(ctx, []step{{
			sql: terminateSQL, oids: []uint32{pgtype.Int8OID}, params: [][]byte{int8Param(w.config.ClaimTimeout.Milliseconds())},
			row: func(v [][]byte) {
				ended, remaining = int64(binary.BigEndian.Uint64(v[0])), int64(binary.BigEndian.Uint64(v[1]))
			},
		}}); err != nil {
			return 0
		}
		if ended > 0 {
			w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "ended connections that held locks and did not come back", slog.Int64("connections", ended))
			return 0
		}
		return time.Duration(remaining) * time.Millisecond
	case "23503":
		w.catalog.forget() // the foreign key may be newer than what we know
	case "25006": // read-only: a new connection may find the new primary
		ctx, cancel := context.WithTimeout(context.Background(), w.config.ClaimTimeout)
		defer cancel()
		_ = s.conn.Conn().Close(ctx)
	case "42P01", "42703", "0A000", "42804", "42P10", "26000", "08P01", "XX000":
		// The tables are not what we believed, or neither are the statements
		// that the server keeps for us.
		w.catalog.forget()
		clear(s.state.prepared)
		ctx, cancel := context.WithTimeout(context.Background(), w.config.ClaimTimeout)
		defer cancel()
		_ = s.conn.Conn().Close(ctx) // a new one has no prepared statements
	}
	return 0
}

func deleteStep(rows []int64) step {
	return step{sql: outboxDeleteSQL, oids: []uint32{pgtype.Int8ArrayOID}, params: [][]byte{int8Array(rows)}, table: "tandem.outbox"}
}

func int8Param(i int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(i))
}

func int8Array(list []int64) []byte {
	slices.Sort(list)
	var b [8]byte
	return appendArray(make([]byte, 0, 20+12*len(list)), pgtype.Int8OID, len(list), func(i int) ([]byte, bool) {
		binary.BigEndian.PutUint64(b[:], uint64(list[i]))
		return b[:], false
	})
}
