// Package lease decides which replica of a source delivers: of several processes with one
// cluster name and function, the one that has the lease, by the clock of the database. The
// epoch of a lease fences what its holder stores.
package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Expires is the time after the latest renewal from which on another replica of
	// the same site takes the lease, by the clock of the database.
	Expires = 3 * time.Second

	// SiteExpires is the time after the latest renewal from which on another site takes
	// the lease: so long after a source has ended, its cluster may move to another site.
	SiteExpires = 5 * time.Minute
)

const (
	// A lease that must not be taken is read and not locked: the replicas that wait for it
	// write nothing. Of two that take it at once, the second waits for the first and finds
	// its row. The holder that the statement returns is the one before it.
	acquireSQL = `with taken as (
    insert into tandem.source_lease as l (cluster, function, site, replica, epoch, renewed_at, until)
    select $1, $2, $3, $4, 1, clock_timestamp(), clock_timestamp() + $6::bigint * interval '1 millisecond'
    where not exists (select from tandem.source_lease l where l.cluster = $1 and l.function = $2 and not (` + leaseFree + `))
    on conflict (cluster, function) do update
    set site = excluded.site, replica = excluded.replica, epoch = l.epoch + 1, renewed_at = clock_timestamp(),
        until = clock_timestamp() + $6::bigint * interval '1 millisecond'
    where ` + leaseFree + `
    returning l.epoch
)
select coalesce((select epoch from taken), 0), coalesce(l.site, ''), coalesce(l.replica, '')
from (values (1)) as one left join tandem.source_lease l on l.cluster = $1 and l.function = $2`

	leaseFree = `case when l.site = $3 then l.until <= clock_timestamp() or $5::boolean and l.replica = $4
    else l.renewed_at <= clock_timestamp() - $7::bigint * interval '1 millisecond' end`

	renewSQL = `update tandem.source_lease
set renewed_at = clock_timestamp(), until = clock_timestamp() + $6::bigint * interval '1 millisecond'
where cluster = $1 and function = $2 and site = $3 and replica = $4 and epoch = $5`

	giveUpSQL = `update tandem.source_lease set until = clock_timestamp()
where cluster = $1 and function = $2 and site = $3 and replica = $4 and epoch = $5`
)

// ErrLost means that another replica of the source has taken the lease: it delivers now.
var ErrLost = errors.New("another replica of the source has taken the lease")

// Holder is a replica of a source: a site and, within it, a name.
type Holder struct{ Site, Replica string }

// Lease is the right of a replica to deliver to a function, in an epoch. The zero value is that
// of a source without replicas, which needs none.
type Lease struct {
	Holder

	// Epoch is higher with each acquisition.
	Epoch int64
}

// Fence returns the parameter by which a statement stores nothing without the lease: site,
// replica and epoch; nil for the zero value.
func (l Lease) Fence() []string {
	if l == (Lease{}) {
		return nil
	}
	return []string{l.Site, l.Replica, strconv.FormatInt(l.Epoch, 10)}
}

// Leases decides which replica of a source is active, for one cluster. It is safe for
// concurrent use.
type Leases struct {
	pool    *pgxpool.Pool
	cluster string
}

// New returns the leases of the sources of one cluster in the database behind pool.
func New(pool *pgxpool.Pool, cluster string) *Leases {
	return &Leases{pool: pool, cluster: cluster}
}

// Acquire takes the lease for function if it is free: no replica has it, it was released, or
// it has expired. With restarted, it is also taken from a holder of the same name: a process
// that ended and was started again. It returns the lease, with an epoch of 0 if it is not
// free, and its holder before.
func (l *Leases) Acquire(ctx context.Context, function string, as Holder, restarted bool) (lease Lease, before Holder, err error) {
	lease.Holder = as
	err = l.pool.QueryRow(ctx, acquireSQL, l.cluster, function, as.Site, as.Replica, restarted, Expires.Milliseconds(), SiteExpires.Milliseconds()).
		Scan(&lease.Epoch, &before.Site, &before.Replica)
	if err != nil {
		return Lease{}, Holder{}, fmt.Errorf("acquire the lease of the source of function %s: %w", function, err)
	}
	return lease, before, nil
}

// Renew extends a lease by [Expires], also one that has expired and was taken by no other
// replica. The error is [ErrLost] if one has taken it.
func (l *Leases) Renew(ctx context.Context, function string, lease Lease) error {
	return l.update(ctx, "renew", renewSQL, function, lease, Expires.Milliseconds())
}

// Release ends a lease, so that another replica takes it at once.
func (l *Leases) Release(ctx context.Context, function string, lease Lease) error {
	return l.update(ctx, "release", giveUpSQL, function, lease)
}

func (l *Leases) update(ctx context.Context, verb, sql, function string, lease Lease, args ...any) error {
	args = append([]any{l.cluster, function, lease.Site, lease.Replica, lease.Epoch}, args...)
	updated, err := l.pool.Exec(ctx, sql, args...)
	if err == nil && updated.RowsAffected() == 0 {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("%s the lease of the source of function %s: %w", verb, function, err)
	}
	return nil
}
