package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// By name in the catalogs: to resolve a table requires a privilege.
const schemaExistsSQL = `select c.oid is not null, coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false), coalesce(pg_catalog.has_table_privilege(c.oid, 'select'), false), current_user
from (values (1)) one left join pg_catalog.pg_namespace n on n.nspname = 'tandem'
left join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = 'migration'`

// ErrMissing means that the database lacks migrations that this program needs.
var ErrMissing = errors.New("the database lacks migrations: run tandem migrate")

// Check returns [ErrMissing] if the database lacks a migration of this program or
// of the sets (newer ones are accepted), another error if an applied migration has
// a different text, and [ErrGrants] if the pool's role lacks privileges that
// writing to these tables needs.
func Check(ctx context.Context, pool *pgxpool.Pool, sets ...MigrationSet) error {
	err := checkSchema(ctx, pool, sets)
	if err != nil {
		return fmt.Errorf("check schema: %w", err)
	}
	return nil
}

func checkSchema(ctx context.Context, pool *pgxpool.Pool, sets []MigrationSet) error {
	role, err := findSchema(ctx, pool)
	if err != nil {
		return err
	}
	own, err := ownMigrations()
	if err != nil {
		return err
	}
	if err := checkMigrations(ctx, pool, append([]MigrationSet{own}, sets...)...); err != nil {
		return err
	}
	names := make([]string, len(sets))
	for i, set := range sets {
		names[i] = set.Name
	}
	statements, err := missingPrivileges(ctx, pool, role, names)
	if err != nil {
		return err
	}
	if len(statements) > 0 {
		return fmt.Errorf("%w: %s", ErrGrants, strings.Join(statements, "; "))
	}
	return nil
}

// findSchema returns an error unless the schema exists and can be used. It also
// returns the current role.
func findSchema(ctx context.Context, db querier) (role string, err error) {
	var exists, usable, readable bool
	if err := db.QueryRow(ctx, schemaExistsSQL).Scan(&exists, &usable, &readable, &role); err != nil {
		return "", err
	}
	switch {
	case !exists:
		return role, fmt.Errorf("schema tandem is missing: %w", ErrMissing)
	case !usable, !readable:
		return role, fmt.Errorf("role %s may not use schema tandem: %w", pgx.Identifier{role}.Sanitize(), ErrGrants)
	}
	return role, nil
}

// checkMigrations returns an error for the first migration that is missing or
// differs from the applied one.
func checkMigrations(ctx context.Context, db querier, sets ...MigrationSet) error {
	for _, set := range sets {
		wanted, err := set.list()
		if err != nil {
			return err
		}
		applied, err := appliedMigrations(ctx, db, set.Name)
		if err != nil {
			return err
		}
		for _, m := range wanted {
			switch sum, ok := applied[m.name]; {
			case !ok:
				return fmt.Errorf("%s of %s is missing: %w", m.name, set.Name, ErrMissing)
			case sum != m.sum:
				return changed(set, m)
			}
		}
	}
	return nil
}
