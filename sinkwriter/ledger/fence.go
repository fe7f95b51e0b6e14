package ledger

// With a lease, a source stores rows only while it holds the lease. The lease's row is locked,
// so that no other replica acquires it before the transaction is committed. The numbers are
// those of the parameter [lease.Lease.Fence]; $1 is the cluster, $2 the function.
const (
	fence9  = `with fence as (` + fenceLock + `$9::text[] for share) `
	fence11 = `with fence as (` + fenceLock + `$11::text[] for share) `
	fence13 = `with fence as (` + fenceLock + `$13::text[] for share) `
	may9    = `($9::text[] is null or exists (select from fence))`
	may11   = `($11::text[] is null or exists (select from fence))`
	may13   = `($13::text[] is null or exists (select from fence))`

	fenceLock = `select 1 from tandem.source_lease where cluster = $1 and function = $2 and array[site, replica, epoch::text] = `
)
