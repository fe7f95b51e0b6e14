package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// standbyLock is the advisory lock under which a cluster asks to stand by, an
// arbitrary number.
const standbyLock int64 = 7_402_261_303

const (
	standbyLockSQL = `select pg_catalog.pg_try_advisory_xact_lock($1)`

	// Whoever stands by already may go on. Else somebody must be at work: a source
	// that runs is heard of every minute.
	mayStandBySQL = `select exists (select from tandem.progress where function = $1 and cluster = $2 and hedge = 'standby')
or exists (select from tandem.progress where function = $1 and cluster <> $2 and hedge <> 'standby' and saved_at > now() - interval '3 minutes')`

	standBySQL = `update tandem.progress set hedge = 'standby' where function = $1 and cluster = $2`
)

// StandBy asks whether this cluster may stand by for function, and notes that it
// does. It may not if no other cluster that was heard of within the last three
// minutes is at work: all would stand by, and nothing be done. Two clusters that
// ask at the same moment are answered one after the other; which comes second is
// told false, or an error, and asks again.
func (p *Checkpoints) StandBy(ctx context.Context, function string) (granted bool, err error) {
	err = pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, standbyLockSQL, standbyLock).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errBusy
		}
		if err := tx.QueryRow(ctx, mayStandBySQL, function, p.cluster).Scan(&granted); err != nil || !granted {
			return err
		}
		_, err := tx.Exec(ctx, standBySQL, function, p.cluster)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask to stand by for function %s: %w", function, err)
	}
	return granted, nil
}
