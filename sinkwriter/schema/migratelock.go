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
	// lockPatience is how long a migration waits for a lock. All who want the same
	// table afterwards queue behind it: longer, and writers run into their own
	// deadlines; shorter, and a batch that takes its time keeps it out for ever.
	lockPatience = 2 * time.Second

	// lockTries is how often it tries, and lockPause how long the others have in
	// between.
	lockTries = 20
	lockPause = time.Second

	// blockersSQL says whom a session waits for. What the role may not see is null.
	blockersSQL = `select a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''), coalesce(a.state, '?'),
    coalesce(date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start), interval '0')
from pg_catalog.pg_stat_activity a where a.pid = any(pg_catalog.pg_blocking_pids($1)) order by 1`
)

// applyPatiently applies a file, again and again while others hold locks that it
// needs.
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
		return fmt.Errorf("it waits for a lock that others hold (%s): end what they do, or stop them, and migrate again; what was applied before stays: %w", blockers, err)
	}
}

// watchBlockers says, some time before the wait for a lock ends, whom the session
// with this number waits for; empty if for nobody, or if that cannot be found out.
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
