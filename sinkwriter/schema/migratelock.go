package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// lockPatience is how long a migration waits for a lock. All later sessions
	// that need the table queue behind it. If the wait is longer, writers exceed
	// their own deadlines; if it is shorter, a slow batch can keep the migration
	// out indefinitely.
	lockPatience = 2 * time.Second

	// lockTries is the number of attempts, and lockPause the pause between them,
	// in which other sessions continue.
	lockTries = 20
	lockPause = time.Second

	// blockersSQL returns the sessions that a session waits for. Columns that the
	// role may not see are null.
	blockersSQL = `select a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, '?'),
    coalesce(date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start), interval '0')
from pg_catalog.pg_stat_activity a where a.pid = any(pg_catalog.pg_blocking_pids($1)) order by 1`
)

// applyPatiently applies a file, and retries while other sessions hold locks
// that it needs.
func applyPatiently(ctx context.Context, conn *pgx.Conn, set string, m migration) error {
	blockers := ""
	for try := 1; ; try++ {
		watching, stop := context.WithCancel(ctx)
		seen := make(chan string, 1)
		go func() { seen <- watchBlockers(watching, conn.Config(), conn.PgConn().PID()) }()
		err := applyOnce(ctx, conn, set, m)
		stop()
		if who := <-seen; who != "" {
			blockers = who
		}
		if err == nil {
			return nil
		}
		var answer *pgconn.PgError
		waited := errors.As(err, &answer) && answer.Code == "55P03"
		if waited && try < lockTries {
			select {
			case <-time.After(lockPause):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if blockers == "" || !waited && ctx.Err() == nil {
			return err
		}
		return fmt.Errorf("it waits for a lock that other sessions hold (%s): end their transactions or the sessions, and migrate again; the files that were applied before stay applied: %w", blockers, err)
	}
}

// watchBlockers returns, shortly before the wait for a lock ends, a description of
// the sessions that the session with this pid waits for. It returns an empty text
// if there is none, or if it cannot be determined.
func watchBlockers(ctx context.Context, config *pgx.ConnConfig, pid uint32) string {
	select {
	case <-time.After(lockPatience / 2):
	case <-ctx.Done():
		return ""
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, blockersSQL, pid)
	if err != nil {
		return ""
	}
	var who []string
	var other uint32
	var role, application, state string
	var lasting time.Duration
	if _, err := pgx.ForEachRow(rows, []any{&other, &role, &application, &state, &lasting}, func() error {
		who = append(who, strings.TrimSpace(fmt.Sprintf("pid %d, role %s, %s for %s %s", other, role, state, lasting, application)))
		return nil
	}); err != nil {
		return ""
	}
	return strings.Join(who, "; ")
}
