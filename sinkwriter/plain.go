package sinkwriter

import (
	"context"
	"errors"
	"math"
	"slices"
)

const (
	savepointSQL = "savepoint tandem"
	goBackSQL    = "rollback to savepoint tandem"

	// plainAfter is how many new rows of a shape are inserted with "on conflict" before further
	// ones are inserted without it.
	plainAfter = 10_000

	uniqueViolation = "23505"
)

// insertion returns the step that inserts rows of a shape; st does so with "on conflict".
//
// # Design
//
// "On conflict do nothing" looks each row up, inserts it speculatively and confirms that, which
// takes twice the time of a plain insertion. Few tables need it: usually a row has a key of the
// event's own, and an event is won once. So once plainAfter rows of a shape were inserted and none
// existed, rows are inserted plainly, behind a savepoint. If one exists after all, the transaction
// returns to the savepoint and inserts with "on conflict", as do all later ones of this process.
// The server logs one error, but no transaction is rolled back.
func (s *shape) insertion(st step, rows int) step {
	switch {
	case s.plainSQL == "":
		return st
	case s.fresh.Load() >= plainAfter:
		st.sql, st.plain = s.plainSQL, s
		return st
	}
	st.affected = func(inserted int64) {
		if inserted == int64(rows) {
			s.fresh.Add(inserted)
		} else if s.fresh.Load() >= 0 {
			s.fresh.Store(0)
		}
	}
	return st
}

// runEffects sends steps by send. If a plain insertion finds that a row exists, it returns to the
// savepoint and sends the effects again, with "on conflict".
func (s *session) runEffects(ctx context.Context, before, effects []step, send func(steps []step) error) error {
	if !slices.ContainsFunc(effects, func(st step) bool { return st.plain != nil }) {
		return send(slices.Concat(before, effects))
	}
	err := send(slices.Concat(before, []step{{sql: savepointSQL}}, effects))
	var failed *statementError
	if s.left || !errors.As(err, &failed) || failed.plain == nil || failed.err.Code != uniqueViolation {
		return err
	}
	failed.plain.fresh.Store(math.MinInt64)
	if err := s.run(ctx, []step{{sql: goBackSQL}}); err != nil {
		return err
	}
	for i := range effects {
		if shape := effects[i].plain; shape != nil {
			effects[i].sql, effects[i].plain = shape.sql, nil
		}
	}
	return send(effects)
}
