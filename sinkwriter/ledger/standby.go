package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// standbyLock is the advisory lock that serializes grants of standby, an arbitrary
// number.
const standbyLock int64 = 7_402_261_303

// reportLimit is the age of its last report at which a cluster counts as silent. A
// running source reports every minute.
const reportLimit = 3 * time.Minute

const (
	standbyLockSQL = `select pg_catalog.pg_try_advisory_xact_lock($1)`

	standsBySQL = `select exists (select from tandem.standby where function = $1 and cluster = $2)`

	// A source that has not decided yet reports standby without a row in tandem.standby:
	// it is not active either.
	mayStandBySQL = `select exists (select from tandem.progress p
where p.function = $1 and p.cluster <> $2 and p.hedge <> 'standby' and p.saved_at > now() - $3::interval
and not exists (select from tandem.standby s where s.function = p.function and s.cluster = p.cluster))`

	standBySQL    = `insert into tandem.standby (function, cluster) values ($1, $2) on conflict (function, cluster) do nothing`
	endStandBySQL = `delete from tandem.standby where function = $1 and cluster = $2`
)

// StandBy reports whether this cluster may stand by for function, and records that
// it does. Standby is granted only while another cluster is active: it is not
// silent and does not stand by. Otherwise all clusters would stand by, and no
// event would be processed.
//
// The grant lasts until [Checkpoints.EndStandBy], whatever checkpoints are saved
// and however often the source restarts; calling StandBy again takes one lookup.
// Grants are serialized: if clusters ask at the same moment, the later one
// receives false or an error, and has to ask again.
func (p *Checkpoints) StandBy(ctx context.Context, function string) (granted bool, err error) {
	err = p.pool.QueryRow(ctx, standsBySQL, function, p.cluster).Scan(&granted)
	if err == nil && !granted {
		granted, err = p.grantStandBy(ctx, function)
	}
	if err != nil {
		return false, fmt.Errorf("request standby for function %s: %w", function, err)
	}
	return granted, nil
}

func (p *Checkpoints) grantStandBy(ctx context.Context, function string) (granted bool, err error) {
	// The check must see the commits of the previous holder of the lock.
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	err = pgx.BeginTxFunc(ctx, p.pool, options, func(tx pgx.Tx) error {
		var locked bool
		if err := tx.QueryRow(ctx, standbyLockSQL, standbyLock).Scan(&locked); err != nil {
			return err
		}
		if !locked {
			return errBusy
		}
		if err := tx.QueryRow(ctx, mayStandBySQL, function, p.cluster, reportLimit).Scan(&granted); err != nil || !granted {
			return err
		}
		_, err := tx.Exec(ctx, standBySQL, function, p.cluster)
		return err
	})
	return granted, err
}

// EndStandBy records that this cluster does not stand by for function, so that
// others may. Call it after delivery has started: otherwise no cluster would be
// active in between. It does nothing if the cluster does not stand by.
func (p *Checkpoints) EndStandBy(ctx context.Context, function string) error {
	if _, err := p.pool.Exec(ctx, endStandBySQL, function, p.cluster); err != nil {
		return fmt.Errorf("end standby for function %s: %w", function, err)
	}
	return nil
}
