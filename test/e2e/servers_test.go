//go:build e2e

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
)

// servers are PostgreSQL and NATS, with the addresses for the clusters and for
// the test.
type servers struct {
	*devcluster.Deployment

	pool *pgxpool.Pool // as a superuser
}

// password is the password of both roles: the server is removed with the test.
const password = "tandem-e2e"

func startServers(t *testing.T) *servers {
	t.Helper()

	dir := pgtest.Dir(t)
	// By default initdb only allows connections from this machine.
	hba := filepath.Join(dir, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("host all all all scram-sha-256\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := devcluster.New(devcluster.Config{
		Dir: dir, BuildLog: t.Output(),
		Postgres: &devcluster.PostgresConfig{Settings: map[string]string{"listen_addresses": "*", "hba_file": hba, "max_connections": "200"}},
		NATS:     &devcluster.NATSConfig{Host: "0.0.0.0", SyncInterval: "always"},
		// docs/install.md creates them with the nats program.
		Streams: []jetstream.StreamConfig{{Name: "EVENTS"}, {Name: expected.OutputStream}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop(t.Context()) })
	if err := d.Start(within(t, 10*time.Minute)); err != nil { // it builds the NATS server
		t.Fatal(err)
	}
	s := &servers{Deployment: d}
	s.makeRoles(t)
	if s.pool, err = pgxpool.New(t.Context(), d.Postgres().AdminURL("tandem")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)
	return s
}

// makeRoles creates the two roles of docs/install.md.
func (s *servers) makeRoles(t *testing.T) {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), s.Postgres().AdminURL("tandem"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range []string{
		"create role tandem_migrator login password '" + password + "'",
		"create role tandem_writer login password '" + password + "'",
		"grant create on database tandem to tandem_migrator",
		"grant create on schema public to tandem_migrator",
		"grant pg_monitor to tandem_writer",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// count executes a query that returns a number.
func (s *servers) count(t *testing.T, sql string, args ...any) int64 {
	t.Helper()

	var n int64
	if err := s.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}
