package sinktest

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// UntilDecided calls once, which calls [sinkwriter.Writer.Once], until it returns no error of a
// busy machine: a caller so slow that its claim times out, that others time out waiting for it, or
// that they make the server end its session (57P01). Calling Once again is safe, and needs no limit
// but the test's own.
func UntilDecided(once func() (bool, error)) (won bool, err error) {
	for {
		won, err = once()
		var answer *pgconn.PgError
		switch {
		case errors.As(err, &answer) && slices.Contains([]string{"25P03", "25P04", "55P03", "57014", "57P01"}, answer.Code):
		case errors.Is(err, context.DeadlineExceeded):
		default:
			return won, err
		}
	}
}
