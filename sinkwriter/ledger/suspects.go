package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	leaseSQL = `insert into tandem.suspect_lease as l (key, cluster, until)
select k, $1, now() + $2::bigint * interval '1 millisecond' from unnest($3::uuid[]) as u(k) order by k
on conflict (key) do update set cluster = excluded.cluster, until = excluded.until
where l.cluster = excluded.cluster or l.until < now()
returning key`

	releaseSQL = `delete from tandem.suspect_lease where cluster = $1 and key = any($2::uuid[]) or until < now() - interval '1 hour'`

	deadElsewhereSQL = `select exists (select from tandem.dead_letter d where tandem.key(d.function, d.source, d.id) = $1 and d.cluster <> $2)`
)

// Suspects coordinates the clusters that try events that may have ended the process of
// their function. It is safe for concurrent use.
type Suspects struct {
	pool    *pgxpool.Pool
	cluster string
}

// NewSuspects returns the suspects of one cluster in the database behind pool.
func NewSuspects(pool *pgxpool.Pool, cluster string) *Suspects {
	return &Suspects{pool: pool, cluster: cluster}
}

// Lease takes or extends the leases of suspects, and returns the keys whose lease this
// cluster holds. They expire after expires, by the clock of the database.
func (s *Suspects) Lease(ctx context.Context, suspects []Key, expires time.Duration) ([]Key, error) {
	rows, err := s.pool.Query(ctx, leaseSQL, s.cluster, expires.Milliseconds(), uuids(suspects))
	if err != nil {
		return nil, fmt.Errorf("lease %d suspects: %w", len(suspects), err)
	}
	held, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k Key, err error) {
		var id [16]byte
		err = row.Scan(&id)
		return Key(id), err
	})
	if err != nil {
		return nil, fmt.Errorf("lease %d suspects: %w", len(suspects), err)
	}
	return held, nil
}

// Release ends this cluster's leases of suspects, and deletes leases that expired long
// ago.
func (s *Suspects) Release(ctx context.Context, suspects []Key) error {
	if _, err := s.pool.Exec(ctx, releaseSQL, s.cluster, uuids(suspects)); err != nil {
		return fmt.Errorf("release %d suspects: %w", len(suspects), err)
	}
	return nil
}

// DeadElsewhere reports whether a suspect is a dead letter of another cluster.
func (s *Suspects) DeadElsewhere(ctx context.Context, suspect Key) (dead bool, err error) {
	if err := s.pool.QueryRow(ctx, deadElsewhereSQL, [16]byte(suspect), s.cluster).Scan(&dead); err != nil {
		return false, fmt.Errorf("look up a dead letter of other clusters: %w", err)
	}
	return dead, nil
}

func uuids(keys []Key) [][16]byte {
	ids := make([][16]byte, len(keys))
	for i, k := range keys {
		ids[i] = k
	}
	return ids
}
