package main

import (
	"bytes"
	"errors"
	"flag"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sethvargo/go-envconfig"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/hack/schema"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// migrate runs the command and gives what it printed.
func migrate(t *testing.T, databaseURL string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, envconfig.MapLookuper(map[string]string{"DATABASE_URL": databaseURL}), &out)
	return out.String(), err
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
	out, err := migrate(t, owner, "--grant", role)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"grant usage on schema tandem to " + role + ";\n",
		"grant delete, insert, select on tandem.ledger to " + role + ";\n",
		"grant delete, insert, select, update on public.airports to " + role + ";\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("printed\n%s\nwant %s in it", out, want)
		}
	}
	if out, err := migrate(t, owner, "--grant="+role); err != nil || out != "-- role "+role+" has all that it needs\n" {
		t.Errorf("again: %q, %v", out, err)
	}
	pool, err := pgxpool.New(t.Context(), writer)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := sinkwriter.CheckSchema(t.Context(), pool, schema.Sets()...); err != nil {
		t.Error(err)
	}
	out, err = migrate(t, owner, "--revoke", role)
	if want := "revoke all on tandem.ledger from " + role + ";\n"; err != nil || !strings.Contains(out, want) {
		t.Errorf("revoke: %q, %v, want %q in it", out, err, want)
	}
	if err := sinkwriter.CheckSchema(t.Context(), pool, schema.Sets()...); !errors.Is(err, sinkwriter.ErrGrants) {
		t.Errorf("after the revoke: %v", err)
	}
}

func TestMigrateSaysHowItIsUsed(t *testing.T) {
	t.Parallel()

	if out, err := migrate(t, "", "--help"); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out, "--grant ROLE") {
		t.Errorf("--help: %q, %v", out, err)
	}
	for _, tt := range []struct {
		name, url string
		args      []string
		want      string
	}{
		{"no database", "", nil, "DATABASE_URL is not set: want postgres://"},
		{"no URL", "postgres://a:secret@b:c/d", nil, "want postgres://"},
		{"no role", "x", []string{"--grant", ""}, "want the name of a role"},
		{"an unknown flag", "x", []string{"--grants", "x"}, "--help says how"},
		{"an argument", "x", []string{"tandem_writer"}, `argument "tandem_writer"`},
	} {
		if out, err := migrate(t, tt.url, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") || out != "" {
			t.Errorf("%s: %q, %v, want %q", tt.name, out, err, tt.want)
		}
	}
}
