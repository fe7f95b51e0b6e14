package schema

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

//go:embed migrations/*.sql
var embedded embed.FS

// ownSet is the name under which our own migrations are recorded.
const ownSet = "tandem"

// migrateLock is the advisory lock that one migration at a time holds, an
// arbitrary number.
const migrateLock int64 = 7_402_261_301

const (
	// create schema if not exists requires the privilege even if the schema exists.
	findSchemaSQL = `select pg_catalog.to_regnamespace('tandem') is not null`
	makeSchemaSQL = `create schema tandem`

	migrationsTableSQL = `create table if not exists tandem.migration (
    set        text        not null,
    name       text        not null,
    sha256     text        not null,
    applied_at timestamptz not null default now(),

    constraint migration_pkey primary key (set, name)
)`
	appliedSQL = `select name, sha256 from tandem.migration where set = $1`
	// By default a role's tables are created in the schema with its name, if
	// there is one, and many users will name their role tandem.
	leaveSchemaSQL = `select pg_catalog.set_config('search_path', 'public', true) where pg_catalog.current_schema() = 'tandem'`
	recordSQL      = `insert into tandem.migration (set, name, sha256) values ($1, $2, $3)`

	// The relations that exist before a function's migration, and then those
	// that it created: they did not exist, and it holds locks on them.
	relationsSQL = `select pg_catalog.format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S') and c.relpersistence <> 't'`
	recordMadeSQL = `insert into tandem.migration (set, name, sha256, made)
select $1, $2, $3, array(select name from (
    select pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_locks l on l.relation = c.oid and l.pid = pg_catalog.pg_backend_pid() and l.mode = 'AccessExclusiveLock'
    and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
    where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S') and c.relpersistence <> 't'
) as locked where not name = any($4::text[]) order by name)`
	migrateLockSQL = `select pg_catalog.pg_try_advisory_lock($1)`
	encodingSQL    = `select pg_catalog.pg_encoding_to_char(encoding) from pg_catalog.pg_database where datname = current_database()`
)

// MigrationSet is a folder of .sql files that are applied in the order of their
// names, each in a transaction of its own, each once.
type MigrationSet struct {
	// Name is the name under which they are recorded: the function's name.
	Name string

	// Files are the .sql files, in the root. Nil for none.
	Files fs.FS
}

// Migrate migrates the schema tandem, then each set's tables, in the given order.
// It may run anywhere at any time, even while writers of the previous release are
// running, and several times at once: the others wait for the first, within ctx.
// Migrate rejects a file that has changed since it was applied.
//
// If other sessions hold a lock that a file needs, Migrate waits for it 2 s at a
// time, so that sessions that queue behind it continue in between, and for a
// minute at most. Then its error lists the sessions that hold the lock.
//
// The objects that it creates belong to its role. The role need not be a
// superuser. It must be allowed to create schemas in the database, or own an
// existing schema tandem, and to create tables in the schemas of the functions.
// Roles that have received privileges from [Grant] also receive them for new
// objects.
func Migrate(ctx context.Context, databaseURL string, sets ...MigrationSet) error {
	conn, err := connectToMigrate(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is open on it

	var encoding string
	if err := conn.QueryRow(ctx, encodingSQL).Scan(&encoding); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("migrate: the database's encoding is %s, but events are Unicode: create it with encoding UTF8", encoding)
	}
	if err := lockMigrations(ctx, conn); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := makeSchema(ctx, conn); err != nil {
		return fmt.Errorf("migrate: %w", advise(conn, err))
	}
	own, err := ownMigrations()
	if err != nil {
		return err
	}
	for _, set := range append([]MigrationSet{own}, sets...) {
		if err := migrateSet(ctx, conn, set); err != nil {
			return advise(conn, err)
		}
	}
	if err := giveAll(ctx, conn); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func connectToMigrate(ctx context.Context, databaseURL string) (*pgx.Conn, error) {
	conn, err := postgres.Connect(ctx, databaseURL, 0)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

func makeSchema(ctx context.Context, conn *pgx.Conn) error {
	var exists bool
	if err := conn.QueryRow(ctx, findSchemaSQL).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema tandem: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, makeSchemaSQL); err != nil {
			return fmt.Errorf("create schema tandem: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, migrationsTableSQL); err != nil {
		return fmt.Errorf("create the table of migrations: %w", err)
	}
	return nil
}

// advise adds the remedy to an error about a privilege that the migrating role
// lacks.
func advise(conn *pgx.Conn, err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || answer.Code != "42501" {
		return err
	}
	role, database := pgx.Identifier{conn.Config().User}.Sanitize(), pgx.Identifier{conn.Config().Database}.Sanitize()
	return fmt.Errorf("%w: role %s has to own the objects that it migrates: always migrate as the same role, "+
		"and allow it to create (grant create on database %s to %s, or create schema tandem authorization %s; grant create on schema public to %s, or in the schemas of the functions' tables)",
		err, role, database, role, role, role)
}

// lockMigrations retries until it has the lock, which ends with the session.
// Waiting for the lock in the server would hold a snapshot, which blocks
// other sessions.
func lockMigrations(ctx context.Context, conn *pgx.Conn) error {
	for {
		var locked bool
		if err := conn.QueryRow(ctx, migrateLockSQL, migrateLock).Scan(&locked); err != nil {
			return fmt.Errorf("take the lock: %w", err)
		}
		if locked {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("another migration holds the lock: %w", ctx.Err())
		}
	}
}

func ownMigrations() (MigrationSet, error) {
	files, err := fs.Sub(embedded, "migrations")
	if err != nil {
		return MigrationSet{}, fmt.Errorf("migrate: %w", err)
	}
	return MigrationSet{Name: ownSet, Files: files}, nil
}

type migration struct {
	name, sql, sum string
}

// list returns the migrations of a set in their order.
func (s MigrationSet) list() ([]migration, error) {
	if s.Files == nil {
		return nil, nil
	}
	entries, err := fs.ReadDir(s.Files, ".") // sorted by name
	if err != nil {
		return nil, fmt.Errorf("migrate %s: %w", s.Name, err)
	}
	var all []migration
	for _, entry := range entries {
		if entry.IsDir() || path.Ext(entry.Name()) != ".sql" {
			continue
		}
		text, err := fs.ReadFile(s.Files, entry.Name())
		if err != nil {
			return nil, fmt.Errorf("migrate %s: %w", s.Name, err)
		}
		sum := sha256.Sum256(text)
		all = append(all, migration{
			name: strings.TrimSuffix(entry.Name(), ".sql"), sql: string(text), sum: hex.EncodeToString(sum[:]),
		})
	}
	return all, nil
}

func migrateSet(ctx context.Context, conn *pgx.Conn, set MigrationSet) error {
	wanted, err := set.list()
	if err != nil {
		return err
	}
	applied, err := appliedMigrations(ctx, conn, set.Name)
	if err != nil {
		return err
	}
	for _, m := range wanted {
		switch sum, ok := applied[m.name]; {
		case !ok:
			if err := applyPatiently(ctx, conn, set.Name, m); err != nil {
				return fmt.Errorf("migrate %s: %s: %w", set.Name, m.name, err)
			}
		case sum != m.sum:
			return fmt.Errorf("migrate %w", changed(set, m))
		}
	}
	return nil
}

// changed returns the error for an applied file that was edited.
func changed(set MigrationSet, m migration) error {
	return fmt.Errorf("%s: %s has changed since it was applied: restore it and add a new file", set.Name, m.name)
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func appliedMigrations(ctx context.Context, db querier, set string) (map[string]string, error) {
	rows, err := db.Query(ctx, appliedSQL, set)
	if err != nil {
		return nil, fmt.Errorf("look up migrations of %s: %w", set, err)
	}
	applied := map[string]string{}
	var name, sum string
	if _, err := pgx.ForEachRow(rows, []any{&name, &sum}, func() error {
		applied[name] = sum
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up migrations of %s: %w", set, err)
	}
	return applied, nil
}

// migrationLockSQL bounds the wait for a lock, within the transaction.
const migrationLockSQL = `select pg_catalog.set_config('lock_timeout', $1, true)`

// applyOnce applies a file. It fails if a lock takes longer than lockPatience.
func applyOnce(ctx context.Context, conn *pgx.Conn, set string, m migration) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, migrationLockSQL, fmt.Sprintf("%dms", lockPatience.Milliseconds())); err != nil {
			return err
		}
		if set == ownSet {
			if _, err := tx.Exec(ctx, m.sql); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, recordSQL, set, m.name, m.sum)
			return err
		}
		if _, err := tx.Exec(ctx, leaveSchemaSQL); err != nil {
			return err
		}
		before, err := texts(ctx, tx, relationsSQL)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, recordMadeSQL, set, m.name, m.sum, before)
		return err
	})
}
