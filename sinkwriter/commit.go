package sinkwriter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5/pgconn"
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
// than ctx allows, it is left to itself, on a connection that nobody else uses any
// more, and the error is errUnknown. No more than Config.Connections are left like
// that at a time; who would be one more waits.
//
// It must not be cancelled, as the driver does with what it gives up: a server
// that waits for a synchronous standby would stop waiting and show everybody rows
// that the standby may not have, and whoever sees them would acknowledge their
// events. The statement's time-out does not count in COMMIT.
func (w *Writer) commitSteps(ctx context.Context, s *session, steps []step) error {
	steps = append(steps, step{sql: commitSQL})
	done := make(chan error, 1)
	go func() { done <- s.run(context.WithoutCancel(ctx), steps) }()
	select {
	case err := <-done:
		return sureOf(s, err)
	case <-ctx.Done():
	}
	free := func() {}
	select {
	case err := <-done:
		return sureOf(s, err)
	case w.left <- struct{}{}:
		free = func() { <-w.left }
	case <-w.ctx.Done(): // the process is about to end
	}
	conn := s.leave()
	go func() {
		defer free()
		err := <-done
		w.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "an abandoned COMMIT has ended", slog.Any("err", err))
		ctx, cancel := context.WithTimeout(context.Background(), w.config.ClaimTimeout)
		defer cancel()
		_ = conn.Close(ctx) // there is nothing more to know
	}()
	return fmt.Errorf("%w: %w", errUnknown, ctx.Err())
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
