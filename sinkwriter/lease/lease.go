// Package lease decides which of several replicas of a source delivers. Replicas are
// processes with the same cluster name and function. The holder of the lease delivers,
// according to the database's clock. The epoch of a lease fences what its holder stores.
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
	// Expires is the age of the latest renewal, by the clock of the database, at
	// which another replica of the same site may take the lease.
	Expires = 3 * time.Second

	// SiteExpires is the age of the latest renewal at which another site may take the
	// lease. A cluster may move to another site that long after its source has ended.
	SiteExpires = 5 * time.Minute
)

const (
	// A lease that must not be taken is read and not locked, so that waiting replicas
	// write nothing. If two replicas take it at once, the second waits for the first and
	// finds its row. The statement returns the previous holder.
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

// ErrLost means that another replica of the source has taken the lease and delivers now.
var ErrLost = errors.New("another replica of the source has taken the lease")

// Holder is a replica of a source: a site and, within it, a name.
type Holder struct{ Site, Replica string }

// Lease is the right of a replica to deliver to a function, in an epoch. The zero value belongs
// to a source without replicas, which needs no lease.
type Lease struct {
	Holder

	// Epoch increases with each acquisition.
	Epoch int64
}

// Fence returns the parameter by which a statement writes nothing without the lease: site,
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
// it has expired. If restarted is true, Acquire also takes it from a holder of the same
// name, which is an earlier process of this replica. It returns the lease, with epoch 0 if
// it is not free, and the previous holder.
func (l *Leases) Acquire(ctx context.Context, function string, as Holder, restarted bool) (lease Lease, before Holder, err error) {
	lease.Holder = as
	err = l.pool.QueryRow(ctx, acquireSQL, l.cluster, function, as.Site, as.Replica, restarted, Expires.Milliseconds(), SiteExpires.Milliseconds()).
		Scan(&lease.Epoch, &before.Site, &before.Replica)
	if err != nil {
		return Lease{}, Holder{}, fmt.Errorf("acquire the lease of the source of function %s: %w", function, err)
	}
	return lease, before, nil
}

// Renew extends a lease by [Expires]. It also renews an expired lease that no other
// replica has taken. The error is [ErrLost] if another replica has taken it.
func (l *Leases) Renew(ctx context.Context, function string, lease Lease) error {
	return l.update(ctx, "renew", renewSQL, function, lease, Expires.Milliseconds())
}

// Release ends a lease, so that another replica can take it immediately.
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
