package sinkwriter

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// The statements that only migration tools execute.
var migratorsOnly = []string{"recordSQL", "recordMadeSQL", "rememberRoleSQL", "writingRolesSQL", "forgetRoleSQL", "unendableSQL", "listDeadSQL", "dropDeadSQL", "setHedgeSQL", "unsetHedgeSQL", "deleteHorizonSQL", "retireLossesSQL"}

func TestTheWritingRoleHasWhatItNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	if err := schema.Migrate(t.Context(), owner); err != nil {
		t.Fatal(err)
	}
	writer := pgtest.Role(t, owner)
	u, err := url.Parse(writer)
	if err != nil {
		t.Fatal(err)
	}
	role := u.User.Username()
	if _, err := schema.Grant(t.Context(), owner, role); err != nil {
		t.Fatal(err)
	}
	admin, conn := connect(t, owner), connect(t, writer)
	execIn(t, conn, "set plan_cache_mode = force_generic_plan")

	// Explaining a statement requires the same privileges as executing it.
	explain := map[string]string{}
	for name, sql := range statements(t) {
		verb, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
		if !slices.Contains([]string{"select", "insert", "update", "delete", "with"}, strings.TrimSpace(strings.ToLower(verb))) {
			continue
		}
		d, err := conn.Prepare(t.Context(), name, sql)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		explain[name] = fmt.Sprintf("explain execute %q", name)
		if n := len(d.ParamOIDs); n > 0 {
			explain[name] += "(" + strings.Repeat("null, ", n-1) + "null)"
		}
	}
	refused := func(name string) bool {
		t.Helper()
		_, err := conn.PgConn().Exec(t.Context(), explain[name]).ReadAll()
		var answer *pgconn.PgError
		if err != nil && (!errors.As(err, &answer) || answer.Code != "42501") {
			t.Fatalf("%s: %v", name, err)
		}
		return err != nil
	}
	checked := 0
	for name := range explain {
		if want := slices.Contains(migratorsOnly, name); refused(name) != want {
			t.Errorf("%s is refused: %t, want %t", name, !want, want)
		}
		checked++
	}
	if checked < 25 {
		t.Errorf("only %d statements were looked at", checked)
	}

	// Without any one of the privileges, some statement is rejected.
	rows, err := admin.Query(t.Context(), `
select privilege_type, relname, null from pg_class c, aclexplode(relacl) where relnamespace = 'tandem'::regnamespace and grantee = $1::regrole
union all
select privilege_type, relname, attname from pg_class c join pg_attribute a on attrelid = c.oid, aclexplode(attacl) where relnamespace = 'tandem'::regnamespace and grantee = $1::regrole`, role)
	if err != nil {
		t.Fatal(err)
	}
	type permission struct {
		Privilege, Relation string
		Column              *string
	}
	permissions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[permission])
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range permissions {
		what := p.Privilege
		if p.Column != nil {
			what += " (" + *p.Column + ")"
		}
		what += " on tandem." + p.Relation
		execIn(t, admin, "revoke "+what+" from "+role)
		needed := false
		for name := range explain {
			needed = needed || !slices.Contains(migratorsOnly, name) && refused(name)
		}
		if !needed {
			t.Errorf("no statement needs %s", what)
		}
		execIn(t, admin, "grant "+what+" to "+role)
	}
	if len(permissions) < 30 {
		t.Errorf("only %d permissions were looked at", len(permissions))
	}
}
