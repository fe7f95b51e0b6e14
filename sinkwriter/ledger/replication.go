package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Columns that the role may not see are null: it needs pg_monitor.
const replicationSQL = `select application_name, sync_state,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn)::bigint,
    coalesce(replay_lag, interval '0')
from pg_catalog.pg_stat_replication where replay_lsn is not null order by 1`

// Standby is a server that follows the primary.
type Standby struct {
	// Name is its application_name.
	Name string

	// Mode is async, potential, sync or quorum.
	Mode string

	// Bytes is the amount of the primary's WAL that it has not applied.
	Bytes int64

	// Lag is the time from the latest applied write on the primary to its
	// application on the standby. Zero if nothing was written for a while.
	Lag time.Duration
}

// Replication returns the standby servers of the database behind pool. The
// role sees them only as a member of pg_monitor; without it the list is
// empty.
func Replication(ctx context.Context, pool *pgxpool.Pool) ([]Standby, error) {
	rows, err := pool.Query(ctx, replicationSQL)
	if err != nil {
		return nil, fmt.Errorf("look up standby servers: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Standby])
	if err != nil {
		return nil, fmt.Errorf("look up standby servers: %w", err)
	}
	return list, nil
}
