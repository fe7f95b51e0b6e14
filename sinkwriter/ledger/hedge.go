package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

const (
	hedgeSQL = `select value from tandem.hedge where function = $1 and cluster in ($2, '') order by cluster desc limit 1`

	hedgesSQL = `select cluster, value from tandem.hedge where function = $1`

	setHedgeSQL = `insert into tandem.hedge (function, cluster, value) values ($1, $2, $3)
on conflict (function, cluster) do update set value = excluded.value, set_at = now()`

	// Without a cluster, the values of single clusters are deleted, too.
	unsetHedgeSQL = `delete from tandem.hedge where function = $1 and (cluster = $2 or $2 = '')`

	// The advisory lock of standby. A source does not wait for it.
	hedgeLockSQL = `select pg_catalog.pg_advisory_xact_lock($1)`

	// As mayStandBySQL, but a cluster that has been set to standby counts as if it had
	// switched already.
	maySetStandBySQL = `select exists (select from tandem.progress p
where p.function = $1 and p.cluster <> $2 and p.hedge <> 'standby' and p.saved_at > now() - $3::interval
and not exists (select from tandem.standby s where s.function = p.function and s.cluster = p.cluster)
and not exists (select from tandem.hedge h where h.function = p.function and h.cluster = p.cluster and h.value = 'standby'))`
)

// standby is the value of a cluster that delivers nothing.
const standby = "standby"

var (
	errEveryCluster = errors.New("all clusters would stand by, and no event would be processed: switch one cluster only")
	errNoneAtWork   = fmt.Errorf("every cluster that reported in the last %s would stand by, and no event would be processed: switch another one from standby first", reportLimit)
)

// Hedge returns the value that was set for function in this cluster or, if there is none, in
// all clusters; empty if no value was set. It takes one lookup.
func (p *Checkpoints) Hedge(ctx context.Context, function string) (value string, err error) {
	err = p.pool.QueryRow(ctx, hedgeSQL, function, p.cluster).Scan(&value)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read the hedge of function %s: %w", function, err)
	}
	return value, nil
}

// SetHedge sets the redundancy of function in one cluster or, with an empty cluster, in all
// clusters; then it also removes the values of single clusters. It does not check whether
// sources accept the value.
//
// It refuses standby if no other cluster would be active. That does not replace
// [Checkpoints.StandBy], because SetHedge does not know the configuration of the sources.
func (p *Checkpoints) SetHedge(ctx context.Context, function, cluster, value string) error {
	err := pgx.BeginTxFunc(ctx, p.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if value == standby {
			if err := maySetStandBy(ctx, tx, function, cluster); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, unsetHedgeSQL, function, cluster); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, setHedgeSQL, function, cluster, value)
		return err
	})
	if err != nil {
		return fmt.Errorf("set the hedge of function %s: %w", function, err)
	}
	return nil
}

// maySetStandBy returns an error if no cluster would be active. Until tx ends, no source
// is granted standby and no other cluster is set to it.
func maySetStandBy(ctx context.Context, tx pgx.Tx, function, cluster string) error {
	if cluster == "" {
		return errEveryCluster
	}
	if _, err := tx.Exec(ctx, hedgeLockSQL, standbyLock); err != nil {
		return err
	}
	var may bool
	if err := tx.QueryRow(ctx, maySetStandBySQL, function, cluster, reportLimit).Scan(&may); err != nil {
		return err
	}
	if !may {
		return errNoneAtWork
	}
	return nil
}

// UnsetHedge removes the value of function in one cluster or, with an empty cluster, all its
// values. Then the configuration of each source applies.
func (p *Checkpoints) UnsetHedge(ctx context.Context, function, cluster string) error {
	if _, err := p.pool.Exec(ctx, unsetHedgeSQL, function, cluster); err != nil {
		return fmt.Errorf("unset the hedge of function %s: %w", function, err)
	}
	return nil
}

// Hedges returns the values that were set for function, by cluster. The value under the
// empty name applies to all clusters without a value of their own.
func (p *Checkpoints) Hedges(ctx context.Context, function string) (map[string]string, error) {
	rows, err := p.pool.Query(ctx, hedgesSQL, function)
	if err != nil {
		return nil, fmt.Errorf("list the hedges of function %s: %w", function, err)
	}
	set := map[string]string{}
	var cluster, value string
	if _, err := pgx.ForEachRow(rows, []any{&cluster, &value}, func() error {
		set[cluster] = value
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list the hedges of function %s: %w", function, err)
	}
	return set, nil
}
