//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"
)

// servers are PostgreSQL and NATS, as the clusters and the test reach them.
type servers struct {
	pool     *pgxpool.Pool // as a superuser, from here
	nc       *nats.Conn
	natsURL  string // from here
	pgPort   int
	natsPort int
}

// password is of both roles: the server is gone with the test.
const password = "tandem-e2e"

func startServers(t *testing.T) *servers {
	t.Helper()

	s := &servers{}
	//nolint:usetesting // PostgreSQL runs as somebody else, who cannot reach TempDir
	dir, err := os.MkdirTemp("", "tandem-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL runs as somebody else
		t.Fatal(err)
	}
	// The rules that initdb makes admit this machine only.
	hba := filepath.Join(dir, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("host all all all scram-sha-256\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sup, err := supervisor.New(supervisor.Config{LogDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pg, err := devcluster.StartPostgres(within(t, 2*time.Minute), sup, devcluster.PostgresConfig{
		Dir: filepath.Join(dir, "pg"), Settings: map[string]string{"listen_addresses": "*", "hba_file": hba, "max_connections": "200"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pg.Stop(context.Background()) })
	s.pgPort = pg.Port()
	s.makeRoles(t, pg)
	if s.pool, err = pgxpool.New(t.Context(), pg.AdminURL("tandem")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)

	broker, err := server.NewServer(&server.Options{
		Host: "0.0.0.0", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(dir, "nats"), SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	t.Cleanup(broker.Shutdown)
	if !broker.ReadyForConnections(30 * time.Second) {
		t.Fatal("NATS does not start")
	}
	u, err := url.Parse(broker.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	if s.natsPort, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	s.natsURL = fmt.Sprintf("nats://127.0.0.1:%d", s.natsPort)
	if s.nc, err = nats.Connect(s.natsURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.nc.Close)
	return s
}

// makeRoles makes the two roles that docs/install.md has.
func (s *servers) makeRoles(t *testing.T, pg *devcluster.Postgres) {
	t.Helper()

	conn, err := pgx.Connect(t.Context(), pg.AdminURL("tandem"))
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

// makeStreams makes the streams, which docs/install.md does with the nats program.
func (s *servers) makeStreams(t *testing.T) {
	t.Helper()

	conn, err := jetstream.Connect(t.Context(), s.natsURL, jetstream.Config{Name: "tandem e2e"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, name := range []string{"EVENTS", expected.OutputStream} {
		if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
}

// count runs a query that gives a number.
func (s *servers) count(t *testing.T, sql string, args ...any) int64 {
	t.Helper()

	var n int64
	if err := s.pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}
