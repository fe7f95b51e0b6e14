package schema

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	// The privileges that role $1 lacks to write, as the statements that grant them:
	// on our own objects, and on those that the sets $2 (null: all) created. It reads
	// catalogs only, so that the role itself can execute it.
	// TestTheWritingRoleHasWhatItNeedsAndNoMore compares the list with the statements
	// of package sinkwriter.
	lackingSQL = `
with own (relation, privilege, columns) as (values
    ('migration',        'select', null),
    ('writer',           'select', null),
    ('writer',           'insert', null),
    ('ledger',           'select', null),
    ('ledger',           'insert', null),
    ('ledger',           'delete', null),
    ('outbox',           'select', null),
    ('outbox',           'insert', null),
    ('outbox',           'update', '{due,events}'::text[]),
    ('outbox',           'delete', null),
    ('rejected_output',  'select', null),
    ('rejected_output',  'insert', null),
    ('rejected_output',  'update', '{code,reason,event,times,last_at}'),
    ('dead_letter',      'select', null),
    ('dead_letter',      'insert', null),
    ('dead_letter',      'update', '{code,reason,attempts,event,times,last_at}'),
    ('blocked_event',    'select', null),
    ('blocked_event',    'insert', null),
    ('blocked_event',    'delete', null),
    ('deferred_event',   'select', null),
    ('deferred_event',   'insert', null),
    ('deferred_event',   'update', '{attempts,last_failed_at,next_run_at,fingerprint,version,reason,held}'),
    ('deferred_event',   'delete', null),
    ('progress',         'select', null),
    ('progress',         'insert', null),
    ('progress',         'update', '{epoch,floor,head,hedge,fit,commit_ms,timeline,saved_at,keep}'),
    ('hedge',            'select', null),
    ('standby',          'select', null),
    ('standby',          'insert', null),
    ('standby',          'delete', null),
    ('tries',            'select', null),
    ('tries',            'insert', null),
    ('tries',            'update', '{epoch,tries,tried_ms,strikes,saved_at}'),
    ('tries',            'delete', null),
    ('suspect_lease',    'select', null),
    ('suspect_lease',    'insert', null),
    ('suspect_lease',    'update', '{cluster,until}'),
    ('suspect_lease',    'delete', null),
    ('source_lease',     'select', null),
    ('source_lease',     'insert', null),
    ('source_lease',     'update', '{site,replica,epoch,renewed_at,until}'),
    ('floor_sample',     'select', null),
    ('floor_sample',     'insert', null),
    ('floor_sample',     'delete', null),
    ('horizon',          'select', null),
    ('horizon',          'insert', null),
    ('horizon',          'update', '{floor,moved_at}'),
    ('divergence',       'select', null),
    ('divergence',       'insert', null),
    ('divergence_count', 'select', null),
    ('divergence_count', 'insert', null),
    ('divergence_count', 'update', '{events,last_at}')
), relations as (
    select c.oid, c.relkind, c.relnamespace, n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname) as name, c.relname
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
), made as (
    select r.* from relations r
    where r.name in (select unnest(m.made) from tandem.migration m where $2::text[] is null or m.set = any($2))
    -- The sequence of an identity column needs no permission, and an extension
    -- sees to its own.
    and not exists (select from pg_catalog.pg_depend d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = r.oid and d.deptype in ('i', 'e') and (r.relkind = 'S' or d.deptype = 'e'))
), lacking (rank, object, privilege, columns) as (
    select 1, 'database ' || quote_ident(current_database()), 'connect', null::text[]
    where not pg_catalog.has_database_privilege($1::name, current_database(), 'connect')
    union all
    select 2, 'schema ' || quote_ident(nspname), 'usage', null
    from pg_catalog.pg_namespace n where (nspname = 'tandem' or oid in (select relnamespace from made))
    and not pg_catalog.has_schema_privilege($1::name, oid, 'usage')
    union all
    select 3, r.name, o.privilege, o.columns
    from own o join relations r on r.nspname = 'tandem' and r.relname = o.relation
    where case when o.columns is null then not pg_catalog.has_table_privilege($1::name, r.oid, o.privilege)
        else exists (select from unnest(o.columns) c where not pg_catalog.has_column_privilege($1::name, r.oid, c, o.privilege)) end
    union all
    select 4, pg_catalog.format('function %I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), 'execute', null
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'tandem' and p.proname in ('key', 'id_order', 'timeline', 'end_session', 'claim') and not pg_catalog.has_function_privilege($1::name, p.oid, 'execute')
    union all
    select 5, m.name, privilege, null
    from made m, unnest(case when m.relkind in ('r', 'p', 'f') then '{select,insert,update,delete}'
        when m.relkind in ('v', 'm') then '{select}' else '{}' end::text[]) as privilege
    where not pg_catalog.has_table_privilege($1::name, m.oid, privilege)
    union all
    select 6, 'sequence ' || m.name, 'usage', null
    from made m where case when m.relkind = 'S' then not pg_catalog.has_sequence_privilege($1::name, m.oid, 'usage') end
)
select 'grant ' || string_agg(privilege || coalesce(' (' || array_to_string(columns, ', ') || ')', ''), ', ' order by privilege) || ' on ' || object || ' to ' || quote_ident($1::name)
from lacking group by rank, object order by rank, object`

	roleSQL = `select pg_catalog.pg_has_role(rolname, n.nspowner, 'usage'), current_user
from pg_catalog.pg_roles, pg_catalog.pg_namespace n where rolname = $1 and n.nspname = 'tandem'`

	// If several roles write: those that log in and whose sessions the owner of function
	// tandem.end_session may not end.
	unendableSQL = `with logins as (
    select r.oid, r.rolname from pg_catalog.pg_roles r where r.rolcanlogin and not r.rolsuper
    and exists (select from pg_catalog.pg_roles w where pg_catalog.pg_has_role(r.oid, w.oid, 'usage')
        and (w.rolname = $1 or w.rolname in (select role from tandem.writing_role)))
    and not exists (select from pg_catalog.pg_namespace n where n.nspname = 'tandem' and pg_catalog.pg_has_role(r.oid, n.nspowner, 'usage'))
)
select l.rolname from logins l, pg_catalog.pg_proc p
where p.oid = to_regprocedure('tandem.end_session(integer, bigint, bigint)') and (select count(*) from logins) > 1
and not pg_catalog.pg_has_role(p.proowner, l.oid, 'usage')
and not (pg_catalog.pg_has_role(p.proowner, 'pg_signal_backend', 'usage') and pg_catalog.pg_has_role(p.proowner, 'pg_read_all_stats', 'usage'))
order by l.rolname`

	rememberRoleSQL = `insert into tandem.writing_role (role) values ($1) on conflict do nothing`
	writingRolesSQL = `select w.role from tandem.writing_role w join pg_catalog.pg_roles r on r.rolname = w.role order by w.role`

	// The privileges that role $1 was granted on our own objects and on those that
	// migrations created.
	grantedSQL = `
with relations as (
    select c.oid, c.relkind, c.relacl, c.relnamespace, n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S')
), ours as (
    select * from relations where nspname = 'tandem' or name in (select unnest(made) from tandem.migration)
), given (rank, object, acl) as (
    select 1, case when relkind = 'S' then 'sequence ' else '' end || name, relacl from ours
    union all
    select 1, o.name, a.attacl from ours o join pg_catalog.pg_attribute a on a.attrelid = o.oid where a.attacl is not null
    union all
    select 2, pg_catalog.format('function %I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), p.proacl
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = 'tandem'
    union all
    select 3, 'schema ' || quote_ident(nspname), nspacl from pg_catalog.pg_namespace where oid in (select relnamespace from ours)
)
select 'revoke all on ' || object || ' from ' || quote_ident($1::name) from given
where exists (select from pg_catalog.aclexplode(acl) a join pg_catalog.pg_roles r on r.oid = a.grantee and r.rolname = $1::name)
group by rank, object order by rank, object`

	forgetRoleSQL = `delete from tandem.writing_role where role = $1`

	// The schemas in which role $1 may create tables, and whether PUBLIC may.
	creatingSQL = `select 'schema ' || quote_ident(nspname), pg_catalog.has_schema_privilege('public', n.oid, 'create')
from pg_catalog.pg_namespace n where pg_catalog.has_schema_privilege($1::name, n.oid, 'create')
and (nspname in ('tandem', 'public') or n.oid in (select c.relnamespace from pg_catalog.pg_class c
    where c.relnamespace = n.oid and pg_catalog.format('%I.%I', nspname, c.relname) in (select unnest(made) from tandem.migration)))
union all
select 'database ' || quote_ident(current_database()), pg_catalog.has_database_privilege('public', current_database(), 'create')
where pg_catalog.has_database_privilege($1::name, current_database(), 'create')`

	unnotedSQL = `select distinct set from tandem.migration where made is null and set <> $1 order by set`
)

// ErrGrants means that the current role lacks privileges that writing needs.
var ErrGrants = errors.New("the role lacks permissions: run tandem migrate --grant, or the statements as the owner")

// Granted is the result of [Grant].
type Granted struct {
	// Statements are those that were executed; none if the role had all
	// privileges.
	Statements []string

	// Warnings are for a person to decide about, one sentence each: privileges
	// that the role does not need, and problems that Grant cannot solve.
	Warnings []string
}

// Grant grants a role the privileges that [sinkwriter.Writer], [sinkwriter.Outbox],
// [deadletter.Store], [ledger.Checkpoints], [ledger.Attempts], [ledger.Retention] and [Check]
// need, and all privileges on the rows of the tables that the sets of [Migrate] have created.
// The role cannot create, change or drop anything, nor read or write other tables. Later calls
// of Migrate also grant privileges on new objects. Grant can be repeated; it grants what is
// missing.
//
// The role must exist. It must not be the owner of the tables, which is the role of databaseURL
// and need not be a superuser. Several roles can be granted the privileges, for example one for
// each function, or a role whose members log in. So that roles can end hanging sessions of each
// other, the owner must be a member of them; a warning lists those of which it is not.
func Grant(ctx context.Context, databaseURL, role string) (Granted, error) {
	conn, err := connectToMigrate(ctx, databaseURL)
	if err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is open on it

	if err := lockMigrations(ctx, conn); err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	own, err := ownMigrations()
	if err != nil {
		return Granted{}, err
	}
	if migrator, err := findSchema(ctx, conn); errors.Is(err, ErrGrants) {
		return Granted{}, fmt.Errorf("grant: role %s has not migrated this database: connect as the role that has", pgx.Identifier{migrator}.Sanitize())
	} else if err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	if err := checkMigrations(ctx, conn, own); err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	g := Granted{}
	if g.Warnings, err = checkRole(ctx, conn, role); err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	if _, err := conn.Exec(ctx, rememberRoleSQL, role); err != nil {
		return Granted{}, fmt.Errorf("grant: record role %s: %w", pgx.Identifier{role}.Sanitize(), err)
	}
	if g.Statements, err = give(ctx, conn, role); err != nil {
		return Granted{}, fmt.Errorf("grant: %w", err)
	}
	return g, nil
}

// Revoke revokes what [Grant] granted, in schema tandem and on the tables that
// migrations have created, and returns the statements that it executed. Later calls
// of [Migrate] grant the role nothing. DatabaseURL is that of the role that
// migrates.
func Revoke(ctx context.Context, databaseURL, role string) ([]string, error) {
	conn, err := connectToMigrate(ctx, databaseURL)
	if err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is open on it

	if err := lockMigrations(ctx, conn); err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	statements, err := texts(ctx, conn, grantedSQL, role)
	if err != nil {
		return nil, fmt.Errorf("revoke: look up the privileges of role %s: %w", pgx.Identifier{role}.Sanitize(), err)
	}
	if _, err := conn.Exec(ctx, forgetRoleSQL, role); err != nil {
		return nil, fmt.Errorf("revoke: forget role %s: %w", pgx.Identifier{role}.Sanitize(), err)
	}
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("revoke: %s: %w", sql, err)
		}
	}
	// PostgreSQL silently keeps the privileges that another role granted.
	left, err := texts(ctx, conn, grantedSQL, role)
	if err != nil {
		return nil, fmt.Errorf("revoke: look up the remaining privileges of role %s: %w", pgx.Identifier{role}.Sanitize(), err)
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("revoke: another role granted these privileges: run this as that role or as the owner: %s", strings.Join(left, "; "))
	}
	return statements, nil
}

// checkRole returns an error if a role cannot be granted anything, and
// warnings for the user.
func checkRole(ctx context.Context, conn *pgx.Conn, role string) (warnings []string, err error) {
	var owns bool
	var migrator string
	err = conn.QueryRow(ctx, roleSQL, role).Scan(&owns, &migrator)
	quoted := pgx.Identifier{role}.Sanitize()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("role %s does not exist: create it first, as a role that may create roles: create role %s login password '…'", quoted, quoted)
	case err != nil:
		return nil, fmt.Errorf("look up role %s: %w", quoted, err)
	case owns:
		return nil, fmt.Errorf("role %s has all privileges already, because it owns schema tandem, is a member of its owner, or is a superuser: name the role that functions and sources connect as", quoted)
	}
	unendable, err := texts(ctx, conn, unendableSQL, role)
	if err != nil {
		return nil, fmt.Errorf("look up which roles' sessions can be ended: %w", err)
	}
	for _, other := range unendable {
		other = pgx.Identifier{other}.Sanitize()
		warnings = append(warnings, fmt.Sprintf("writers that log in as another role cannot end a hanging session of role %s: let an administrator run: grant %s to %s", other, other, pgx.Identifier{migrator}.Sanitize()))
	}
	rows, err := conn.Query(ctx, creatingSQL, role)
	if err != nil {
		return nil, fmt.Errorf("look up where role %s may create: %w", quoted, err)
	}
	var object string
	var everybody bool
	if _, err := pgx.ForEachRow(rows, []any{&object, &everybody}, func() error {
		from := quoted
		if everybody {
			from = "public"
		}
		warnings = append(warnings, fmt.Sprintf("role %s may create in %s, which it does not need: revoke create on %s from %s", quoted, object, object, from))
		return nil
	}); err != nil {
		return nil, fmt.Errorf("look up where role %s may create: %w", quoted, err)
	}
	sets, err := texts(ctx, conn, unnotedSQL, ownSet)
	if err != nil {
		return nil, fmt.Errorf("look up migrations: %w", err)
	}
	for _, set := range sets {
		warnings = append(warnings, fmt.Sprintf("migrations of %s ran before Tandem recorded which tables they create: grant select, insert, update, delete on their tables to %s", set, quoted))
	}
	return warnings, nil
}

// give grants the privileges that a role lacks.
func give(ctx context.Context, conn *pgx.Conn, role string) ([]string, error) {
	statements, err := missingPrivileges(ctx, conn, role, nil)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", sql, err))
		}
	}
	// A role without the grant option causes no error if it has the privilege
	// itself.
	left, err := missingPrivileges(ctx, conn, role, nil)
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("this role may not grant all of these privileges: let the owner run: %s", strings.Join(left, "; ")))
	}
	return statements, errors.Join(errs...)
}

// giveAll grants every writing role the privileges that it lacks.
func giveAll(ctx context.Context, conn *pgx.Conn) error {
	roles, err := texts(ctx, conn, writingRolesSQL)
	if err != nil {
		return fmt.Errorf("look up the roles that write: %w", err)
	}
	for _, role := range roles {
		if _, err := give(ctx, conn, role); err != nil {
			return err
		}
	}
	return nil
}

// missingPrivileges returns the statements that grant what a role lacks on our own tables
// and on those of the sets; nil means all sets.
func missingPrivileges(ctx context.Context, db querier, role string, sets []string) ([]string, error) {
	statements, err := texts(ctx, db, lackingSQL, role, sets)
	if err != nil {
		return nil, fmt.Errorf("look up the privileges of role %s: %w", pgx.Identifier{role}.Sanitize(), err)
	}
	return slices.Clip(statements), nil
}

// texts returns the result of a query with one column.
func texts(ctx context.Context, db querier, sql string, args ...any) ([]string, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
