package sinkwriter

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

// Once runs fn in the transaction that claims key, and commits it, unless key was
// claimed before. It is for code with its own SQL: everything that fn does
// through the transaction is done once for each key, in one of the clusters. fn
// must not commit or roll back.
//
// Once reports whether fn's work was committed now. If fn returns an error, Once
// returns it unchanged and the key is not claimed; the same applies to a panic
// and to the end of ctx. Other errors can be transient: it is safe to call Once
// again with the same key. If the connection is lost during COMMIT the outcome is
// unknown, and the next call determines it.
//
// fn holds the claim while it runs. The server ends the transaction if fn pauses
// for longer than the claim timeout between two statements, so compute first, and
// only execute SQL in fn. Once is safe for concurrent use with different keys.
func (w *Writer) Once(ctx context.Context, key ledger.Key, fn func(pgx.Tx) error) (won bool, err error) {
	if w.isClosed() {
		return false, ErrClosed
	}
	acquiring, acquired := context.WithTimeout(ctx, w.config.CommitTimeout+w.connecting)
	s, err := w.acquire(acquiring)
	acquired()
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	defer w.watch(s, s.claimTimeout/2)()
	sound := false
	defer func() {
		if !sound { // fn panicked
			s.abandon()
			return
		}
		s.release()
	}()
	won, err = w.once(ctx, s, key, fn)
	if err != nil && !s.left {
		s.rollback()
		w.after(ctx, s, err)
	}
	sound = true
	return won, err
}

func (w *Writer) once(ctx context.Context, s *session, key ledger.Key, fn func(pgx.Tx) error) (bool, error) {
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", key, err)
	}
	id := writerID(w.config.Cluster, onceName, onceName)
	text := []byte(onceName)
	won := false
	var none digest // equal for all: nothing is compared
	err = s.run(ctx, []step{
		s.settings(),
		{
			sql: registerSQL, oids: []uint32{pgtype.Int8OID, pgtype.TextOID, pgtype.TextOID, pgtype.TextOID},
			params: [][]byte{int8Param(id), []byte(w.config.Cluster), text, text}, table: "tandem.writer",
		},
		{
			sql: claimSQL, oids: []uint32{pgtype.UUIDArrayOID, pgtype.ByteaArrayOID, pgtype.Int8ArrayOID},
			params: [][]byte{
				appendArray(nil, pgtype.UUIDOID, 1, func(int) ([]byte, bool) { return key[:], false }),
				appendArray(nil, pgtype.ByteaOID, 1, func(int) ([]byte, bool) { return none[:], false }),
				int8Array([]int64{id}),
			},
			table:    "tandem.ledger",
			affected: func(rows int64) { won = rows > 0 },
		},
	})
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", key, err)
	}
	if won {
		if err := fn(tx); err != nil {
			return false, err
		}
	}
	switch status := s.conn.Conn().PgConn().TxStatus(); {
	case status == 'I' && won:
		return false, fmt.Errorf("commit %s: %w", key, pgx.ErrTxClosed)
	case status == 'E':
		return false, fmt.Errorf("commit %s: %w", key, pgx.ErrTxCommitRollback)
	}
	// The writer does not know whether an earlier call ended without an answer.
	if err := w.commitSteps(ctx, s, []step{{sql: witnessSQL}}); err != nil {
		return false, fmt.Errorf("commit %s: %w", key, err)
	}
	return won, nil
}

// onceName is the function and version in the rows of Once.
const onceName = "once"

func (w *Writer) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}
