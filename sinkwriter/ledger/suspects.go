package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	leaseSQL = `insert into tandem.suspect_lease as l (function, source, id, cluster, until)
select $1, s, i, $2, now() + $3::bigint * interval '1 millisecond' from unnest($4::text[], $5::text[]) as u(s, i) order by s, i
on conflict (function, source, id) do update set cluster = excluded.cluster, until = excluded.until
where l.cluster = excluded.cluster or l.until < now()
returning source, id`

	releaseSQL = `delete from tandem.suspect_lease where function = $1
and (cluster = $2 and (source, id) in (select s, i from unnest($3::text[], $4::text[]) as u(s, i)) or until < now() - interval '1 hour')`

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

// Suspect is the identity of an event that may have ended the process.
type Suspect struct {
	Source, ID string
}

// Lease takes or extends the leases of suspects of function, and returns those that this
// cluster has. They expire after a time, by the clock of the database.
func (s *Suspects) Lease(ctx context.Context, function string, suspects []Suspect, expires time.Duration) (map[Suspect]bool, error) {
	sources, ids := columns(suspects)
	rows, err := s.pool.Query(ctx, leaseSQL, function, s.cluster, expires.Milliseconds(), sources, ids)
	held := map[Suspect]bool{}
	if err == nil {
		var e Suspect
		_, err = pgx.ForEachRow(rows, []any{&e.Source, &e.ID}, func() error {
			held[e] = true
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("lease the suspects of function %s: %w", function, err)
	}
	return held, nil
}

// Release ends the leases of suspects of function that this cluster has, and forgets those
// that have long expired.
func (s *Suspects) Release(ctx context.Context, function string, suspects []Suspect) error {
	sources, ids := columns(suspects)
	if _, err := s.pool.Exec(ctx, releaseSQL, function, s.cluster, sources, ids); err != nil {
		return fmt.Errorf("release the suspects of function %s: %w", function, err)
	}
	return nil
}

func columns(suspects []Suspect) (sources, ids []string) {
	sources, ids = make([]string, len(suspects)), make([]string, len(suspects))
	for i, e := range suspects {
		sources[i], ids[i] = e.Source, e.ID
	}
	return sources, ids
}

// DeadElsewhere reports whether a suspect is a dead letter of another cluster.
func (s *Suspects) DeadElsewhere(ctx context.Context, function string, suspect Suspect) (dead bool, err error) {
	if err := s.pool.QueryRow(ctx, deadElsewhereSQL, function, suspect.Source, suspect.ID, s.cluster).Scan(&dead); err != nil {
		return false, fmt.Errorf("look up a dead letter of other clusters: %w", err)
	}
	return dead, nil
}
