package snapshot

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/sinkwriter/ledger"
)

const (
	clockSQL        = `select clock_timestamp()`
	keepsCommitsSQL = `show track_commit_timestamp`
	countSinceSQL   = `select count(*) from tandem.ledger where committed_at > $1`
	begunSinceSQL   = `select key, committed_at from tandem.ledger where committed_at >= $1`
	exactSinceSQL   = `select key, coalesce(pg_xact_commit_timestamp(xmin), committed_at) from tandem.ledger where committed_at >= $1`
	processedSQL    = `select (select count(*) from tandem.ledger where key = any($1::uuid[])) +
(select count(distinct id) from tandem.dead_letter where function = $2 and source = $3 and id = any($4))`
)

// Clock returns the time by the server's clock.
func (s *Snapshot) Clock(ctx context.Context) (now time.Time, err error) {
	if err := s.tx.QueryRow(ctx, clockSQL).Scan(&now); err != nil {
		return now, fmt.Errorf("read the database's clock: %w", err)
	}
	return now, nil
}

// CountCommits returns the number of events in the ledger whose transactions began
// after a time.
func (s *Snapshot) CountCommits(ctx context.Context, since time.Time) (n int64, err error) {
	if err := s.tx.QueryRow(ctx, countSinceSQL, since).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the ledger: %w", err)
	}
	return n, nil
}

// CommitTimes returns the commit times of the events whose transactions began at a time
// or later. If exact is false, the server does not record commit times
// (track_commit_timestamp), and the times are those at which the transactions began.
func (s *Snapshot) CommitTimes(ctx context.Context, since time.Time) (at map[ledger.Key]time.Time, exact bool, err error) {
	var setting string
	if err := s.tx.QueryRow(ctx, keepsCommitsSQL).Scan(&setting); err != nil {
		return nil, false, fmt.Errorf("read the times of commits: %w", err)
	}
	sql := begunSinceSQL
	if exact = setting == "on"; exact {
		sql = exactSinceSQL
	}
	rows, err := s.tx.Query(ctx, sql, since)
	if err != nil {
		return nil, exact, fmt.Errorf("read the times of commits: %w", err)
	}
	at = map[ledger.Key]time.Time{}
	var key [16]byte
	var one time.Time
	if _, err = pgx.ForEachRow(rows, []any{&key, &one}, func() error {
		at[key] = one
		return nil
	}); err != nil {
		return nil, exact, fmt.Errorf("read the times of commits: %w", err)
	}
	return at, exact, nil
}

// CountProcessed returns how many of the events of a source a function has committed or
// refused for good.
func (s *Snapshot) CountProcessed(ctx context.Context, function, source string, ids []string) (n int, err error) {
	keys := make([][16]byte, len(ids))
	for i, id := range ids {
		keys[i] = ledger.NewKey(function, source, id)
	}
	if err := s.tx.QueryRow(ctx, processedSQL, keys, function, source, ids).Scan(&n); err != nil {
		return 0, fmt.Errorf("look up %d events: %w", len(ids), err)
	}
	return n, nil
}
