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

	// A transaction that writes nothing does not wait for standbys. This record
	// makes COMMIT wait for itself and for all earlier
	// writes.
	witnessSQL = `select pg_catalog.pg_logical_emit_message(true, 'tandem', '')`
)

// errUnknown means that COMMIT was sent and its outcome is unknown.
var errUnknown = errors.New("the outcome of COMMIT is unknown")

// commitSteps sends the steps and COMMIT in one round trip. If that takes longer than ctx
// allows, it returns errUnknown, and the COMMIT continues in the background on a connection
// that is not used again. Up to Config.Connections of these connections are taken out of the
// pool; further ones keep their place in it.
//
// The COMMIT must not be cancelled, which is what the driver does with an abandoned query. A
// server that waits for a synchronous standby would stop waiting, and would show rows that
// the standby may not have to every session; a cluster that sees them would acknowledge
// their events. The statement timeout does not apply to COMMIT.
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

// await waits for the end of a COMMIT that runs in the background, and closes its connection.
// It takes the connection out of the pool as soon as fewer than Config.Connections are, or when
// the process is about to end.
func (w *Writer) await(conn *pgxpool.Conn, done <-chan error, begin time.Time) {
	overdue := time.NewTimer(w.config.CommitTimeout - now().Sub(begin))
	defer overdue.Stop()
	place, ending := w.left, w.ctx.Done()
	counted := false
	var out *pgx.Conn // the connection, taken out of the pool
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
	_ = out.Close(ctx) // nothing more can be learned from it
}

// Ready returns an error while a COMMIT has been unanswered for longer than the commit timeout,
// for example because packets are lost between this process and the server, or because the
// server waits for a synchronous standby. Other processes may be able to commit.
func (w *Writer) Ready() error {
	if n := w.unanswered.Load(); n > 0 {
		return fmt.Errorf("the database has not answered %d COMMITs for more than %s", n, w.config.CommitTimeout)
	}
	return nil
}

// sureOf returns err as it is if the server answered the COMMIT. Otherwise the outcome
// is unknown, and the error wraps errUnknown.
//
// A server that ends a transaction because it was idle for too long (25P03) closes the
// connection, too, but has not executed COMMIT: a transaction that is being committed is
// not idle.
func sureOf(s *session, err error) error {
	answer := new(pgconn.PgError)
	if err == nil || errors.As(err, &answer) && (answer.Code == "25P03" || !s.conn.Conn().PgConn().IsClosed()) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}
