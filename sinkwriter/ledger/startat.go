package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	hasCheckpointSQL = `select exists (select from tandem.progress where function = $1 and stream = $2)`

	setHorizonSQL = `insert into tandem.horizon (function, stream, epoch, floor) values ($1, $2, $3, $4::text::numeric)
on conflict (function, stream, epoch) do update set floor = excluded.floor, moved_at = now()`

	deleteHorizonSQL = `delete from tandem.horizon where function = $1 and stream = $2`
)

// StartAt sets the sequence of the first message that a function gets of a stream, in every
// cluster; 0 is the beginning of the stream. If ok is false, nothing was changed, because a
// cluster has a checkpoint. The role must be the one that migrates.
func (p *Checkpoints) StartAt(ctx context.Context, function, stream, epoch string, sequence uint64) (ok bool, err error) {
	err = pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		var started bool
		if err := tx.QueryRow(ctx, hasCheckpointSQL, function, stream).Scan(&started); err != nil {
			return err
		}
		if ok = !started; !ok {
			return nil
		}
		if _, err := tx.Exec(ctx, deleteHorizonSQL, function, stream); err != nil || sequence == 0 {
			return err
		}
		_, err := tx.Exec(ctx, setHorizonSQL, function, stream, epoch, number(sequence))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("set where function %s starts in stream %s: %w", function, stream, err)
	}
	return ok, nil
}
