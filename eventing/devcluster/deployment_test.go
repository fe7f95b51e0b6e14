package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// newDeployment returns a deployment that ends with the test.
func newDeployment(t *testing.T, cfg devcluster.Config) *devcluster.Deployment {
	t.Helper()
	d, err := devcluster.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Stop(t.Context()) })
	return d
}

func TestADeploymentHasItsFolderForItself(t *testing.T) {
	t.Parallel()

	cfg := devcluster.Config{Dir: t.TempDir()}
	first := newDeployment(t, cfg)
	_, err := devcluster.New(cfg)
	if want := fmt.Sprintf("another `make run` (pid %d) uses %s", os.Getpid(), cfg.Dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("second deployment: %v, want %q", err, want)
	}
	first.Stop(t.Context())
	lock := filepath.Join(cfg.Dir, "lock")
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock's file is still there: %v", err)
	}
	// The lock file of a killed process does not count.
	if err := os.WriteFile(lock, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	newDeployment(t, cfg)
}

func TestADeploymentNamesThePartWhosePortIsTaken(t *testing.T) {
	t.Parallel()

	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	_, text, _ := net.SplitHostPort(taken.Addr().String())
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	for part, cfg := range map[string]devcluster.Config{
		"PostgreSQL":   {FirstPort: port, Postgres: &devcluster.PostgresConfig{}},
		"cluster east": {FirstPort: port - devcluster.PortStep, Clusters: []devcluster.ClusterConfig{{Name: "east"}}},
	} {
		cfg.Dir = t.TempDir()
		want := fmt.Sprintf("%s: port %d on 127.0.0.1 is in use", part, port)
		if _, err := devcluster.New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTheDatabaseIsPreparedAlthoughItIsKilledMeanwhile(t *testing.T) {
	t.Parallel()

	calls := 0
	var d *devcluster.Deployment
	d = newDeployment(t, devcluster.Config{
		Dir: pgtest.Dir(t), Postgres: &devcluster.PostgresConfig{}, RestartDelay: 50 * time.Millisecond,
		Prepare: func(ctx context.Context, databaseURL string) error {
			conn, err := pgx.Connect(ctx, databaseURL)
			if err != nil {
				return err
			}
			defer conn.Close(ctx) //nolint:errcheck // it may be lost
			if calls++; calls == 1 {
				if err := d.Postgres().Process().Kill(syscall.SIGKILL); err != nil {
					return err
				}
				if _, err = conn.Exec(ctx, "select pg_sleep(60)"); err == nil {
					t.Error("a killed server has answered")
				}
				return err
			}
			_, err = conn.Exec(ctx, "create table prepared ()")
			return err
		},
	})
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := d.Pool.QueryRow(t.Context(), "select count(*) from prepared").Scan(&n); err != nil || calls < 2 {
		t.Errorf("after %d calls: %v", calls, err)
	}
}

func TestAClusterBehindLinksReturnsAtItsAddresses(t *testing.T) {
	t.Parallel()

	f := flights.Function()
	cfg := devcluster.ClusterConfig{Name: "east", Function: f.Name, Env: []string{"TANDEM_FUNCTIONS=" + f.Name}}
	d := newDeployment(t, devcluster.Config{
		Dir: pgtest.Dir(t), BuildLog: t.Output(), Linked: true,
		DatabaseURL: pgtest.URL(t),
		Prepare: func(ctx context.Context, databaseURL string) error {
			return schema.Migrate(ctx, databaseURL, schema.MigrationSet{Name: f.Name, Files: f.Migrations})
		},
		NATS:     &devcluster.NATSConfig{},
		Streams:  []jetstream.StreamConfig{{Name: "EVENTS"}, {Name: "OUTPUTS"}},
		Clusters: []devcluster.ClusterConfig{cfg},
	})
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	east := d.Cluster("east")
	east.Vanish()
	again, err := d.StartCluster(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again.IngestURL() != east.IngestURL() || len(d.Clusters()) != 1 {
		t.Errorf("%s is %s after a restart, of %d clusters", east.IngestURL(), again.IngestURL(), len(d.Clusters()))
	}
	if err := d.WaitUntilReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"east-postgres", "east-nats"} {
		if there, back := d.Link(name).Bytes(); there == 0 || back == 0 {
			t.Errorf("%d and %d bytes have crossed link %s", there, back, name)
		}
	}
}
