package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	leaseSQL = `insert into tandem.suspect_lease as l (function, cluster, until)
values ($1, $2, now() + $3::bigint * interval '1 millisecond')
on conflict (function) do update set cluster = excluded.cluster, until = excluded.until
where l.cluster = excluded.cluster or l.until < now()`

	releaseSQL = `delete from tandem.suspect_lease where function = $1 and cluster = $2`

	deadElsewhereSQL = `select exists (select from tandem.dead_letter where function = $1 and source = $2 and id = $3 and cluster <> $4)`
)

// Suspects coordinates the clusters that try events that may have ended the process of a
// function. It is safe for concurrent use.
type Suspects struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewSuspects returns the suspects of one cluster in the database behind pool.
func NewSuspects(pool *pgxpool.Pool, cluster string) *Suspects {
	return &Suspects{pool: pool, cluster: cluster}
}

// Lease takes or extends the lease of function, and reports whether this cluster has it. It
// expires after a time, by the clock of the database.
func (s *Suspects) Lease(ctx context.Context, function string, expires time.Duration) (bool, error) {
	tag, err := s.pool.Exec(ctx, leaseSQL, function, s.cluster, expires.Milliseconds())
	if err != nil {
		return false, fmt.Errorf("lease the suspects of function %s: %w", function, err)
	}
	return tag.RowsAffected() == 1, nil
}

// Release ends the lease of function if this cluster has it.
func (s *Suspects) Release(ctx context.Context, function string) error {
	if _, err := s.pool.Exec(ctx, releaseSQL, function, s.cluster); err != nil {
		return fmt.Errorf("release the suspects of function %s: %w", function, err)
	}
	return nil
}

// DeadElsewhere reports whether an event is a dead letter of another cluster.
func (s *Suspects) DeadElsewhere(ctx context.Context, function, source, id string) (dead bool, err error) {
	if err := s.pool.QueryRow(ctx, deadElsewhereSQL, function, source, id, s.cluster).Scan(&dead); err != nil {
		return false, fmt.Errorf("look up a dead letter of other clusters: %w", err)
	}
	return dead, nil
}
