package main

import (
	"encoding/json"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the test checks what the writer may do

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/functions/chat"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// root is the folder of this module, which has a function.
const root = "../../.."

func migrateTool(t *testing.T, databaseURL string, args ...string) ran {
	t.Helper()

	return invoke(t, map[string]string{"DATABASE_URL": databaseURL}, append([]string{"migrate"}, args...)...)
}

func TestFunctionsWriteAsTheRoleThatWasGranted(t *testing.T) {
	t.Parallel()

	owner := pgtest.URL(t)
	writer := pgtest.Role(t, owner)
	u, err := url.Parse(writer)
	if err != nil {
		t.Fatal(err)
	}
	role := u.User.Username()
	out := migrateTool(t, owner, "--function", root, "--grant", role).ok(t)
	for _, want := range []string{
		"-- migrated: tandem, chat ",
		"grant usage on schema tandem to " + role + ";\n",
		"grant delete, insert, select on tandem.ledger to " + role + ";\n",
		"grant delete, insert, select, update on public.airports to " + role + ";\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("printed\n%s\nwant %s in it", out, want)
		}
	}
	if out := migrateTool(t, owner, "--grant="+role).ok(t); out != "-- migrated: tandem\n-- role "+role+" has all the privileges that it needs\n" {
		t.Errorf("again: %q", out)
	}
	sets := []schema.MigrationSet{{Name: "chat", Files: chat.Function().Migrations}, {Name: "flights", Files: flights.Function().Migrations}}
	pool, err := pgxpool.New(t.Context(), writer)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := schema.Check(t.Context(), pool, sets...); err != nil {
		t.Error(err)
	}
	var done migrated
	out = migrateTool(t, owner, "-o", "json", "--revoke", role).ok(t)
	if err := json.Unmarshal([]byte(out), &done); err != nil || !strings.Contains(strings.Join(done.Revoked, ";"), "revoke all on tandem.ledger from "+role) || done.Functions == nil || len(done.Granted) > 0 {
		t.Errorf("revoke: %v, %s", err, out)
	}
	if err := schema.Check(t.Context(), pool, sets...); !errors.Is(err, schema.ErrGrants) {
		t.Errorf("after the revoke: %v", err)
	}
}

func TestAWrongMigrationIsExplained(t *testing.T) {
	t.Parallel()

	if out := migrateTool(t, "", "--help").ok(t); !strings.Contains(out, "--grant role") || !strings.Contains(out, "create role tandem_writer") {
		t.Errorf("--help: %q", out)
	}
	empty := t.TempDir()
	for _, tt := range []struct {
		name, url string
		args      []string
		want      string
	}{
		{"no database", "", nil, "set --database-url or DATABASE_URL, as postgres://"},
		{"no URL", "postgres://a:secret@b:c/d", nil, "want postgres://"},
		{"no role", "x", []string{"--grant", ""}, "want the name of a role"},
		{"an unknown flag", "x", []string{"--grants", "x"}, "unknown flag: --grants: see tandem migrate --help"},
		{"an argument", "x", []string{"tandem_writer"}, `argument "tandem_writer"`},
		{"two programs", "x", []string{"--function", ".", "--image", "x"}, "want one of them"},
		{"no function", "postgres://x", []string{"--function", filepath.Join(empty, "orders")}, "look for a function in " + empty},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			migrateTool(t, tt.url, tt.args...).fails(t, 2, tt.want)
		})
	}
}
