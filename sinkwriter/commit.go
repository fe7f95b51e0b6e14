package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	commitSQL = "commit"

	// A transaction that writes nothing does not wait for standbys. With this it
	// does, for itself and for all that was written before it.
	witnessSQL = `select pg_catalog.pg_logical_emit_message(true, 'tandem', '')`
)

// errUnknown says that COMMIT was sent and nobody knows what came of it.
var errUnknown = errors.New("the outcome of COMMIT is unknown")

// commitSteps sends the steps and COMMIT in one round trip. If that takes longer
// than ctx allows, it is left to itself, on a connection that is not used any
// more, and the error is errUnknown. Config.Connections of these connections are outside the
// pool; further ones keep their places in it.
//
// It must not be cancelled, as the driver does with what it gives up: a server
// that waits for a synchronous standby would stop waiting and show everybody rows
// that the standby may not have, and whoever sees them would acknowledge their
// events. The statement's time-out does not count in COMMIT.
func (w *Writer) commitSteps(ctx context.Context, s *session, steps []step) error {
	steps = append(steps, step{sql: commitSQL})
	done := make(chan error, 1)
	go func() { done <- s.run(context.WithoutCancel(ctx), steps) }()
	begin := now()
	select {
	case err := <-done:
		return sureOf(s, err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return sureOf(s, err)
	default:
	}
	s.left = true
	go w.await(s.conn, done, begin)
	return fmt.Errorf("%w: %w", errUnknown, ctx.Err())
}

// await waits for the end of a COMMIT that was left to itself, and closes its connection. It takes
// it out of the pool once fewer than Config.Connections are, or the process is about to end.
func (w *Writer) await(conn *pgxpool.Conn, done <-chan error, begin time.Time) {
	overdue := time.NewTimer(w.config.CommitTimeout - now().Sub(begin))
	defer overdue.Stop()
	place, ending := w.left, w.ctx.Done()
	counted := false
	var out *pgx.Conn // of the pool
	var err error
	for ended := false; !ended; {
		select {
		case err = <-done:
			ended = true
		case place <- struct{}{}:
			out, place, ending = conn.Hijack(), nil, nil
			defer func() { <-w.left }()
		case <-ending:
			out, place, ending = conn.Hijack(), nil, nil
		case <-overdue.C:
			counted = true
			w.unanswered.Add(1)
		}
	}
	if counted {
		w.unanswered.Add(-1)
	}
	if out == nil {
		out = conn.Hijack()
	}
	w.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "an abandoned COMMIT has ended", slog.Any("err", err))
	ctx, cancel := context.WithTimeout(context.Background(), w.config.ClaimTimeout)
	defer cancel()
	_ = out.Close(ctx) // there is nothing more to know
}

// Ready returns an error while a COMMIT has had no answer for longer than the commit timeout, as
// when packets vanish between this process and the server, or the server waits for a synchronous
// standby. Other processes may be able to commit.
func (w *Writer) Ready() error {
	if n := w.unanswered.Load(); n > 0 {
		return fmt.Errorf("%d COMMITs have had no answer of the database for more than %s", n, w.config.CommitTimeout)
	}
	return nil
}

// sureOf tells an answer of the server from none.
//
// A server that ends a transaction because it was idle for too long (25P03) closes the
// connection too, but has not executed COMMIT: a transaction that is committed is not idle,
// it is over.
func sureOf(s *session, err error) error {
	answer := new(pgconn.PgError)
	if err == nil || errors.As(err, &answer) && (answer.Code == "25P03" || !s.conn.Conn().PgConn().IsClosed()) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}
