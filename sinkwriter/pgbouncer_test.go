package sinkwriter_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

// startPgbouncer starts a PgBouncer in transaction mode for a database, and returns
// its URL. The URL disables named prepared statements, because the next transaction
// may use another server connection.
func startPgbouncer(t *testing.T, databaseURL string, connections int) string {
	t.Helper()
	return startPgbouncerWith(t, databaseURL, connections, "pool_mode = transaction\n") + "&default_query_exec_mode=exec"
}

// startPgbouncerWith starts a PgBouncer with further settings.
func startPgbouncerWith(t *testing.T, databaseURL string, connections int, settings string) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	dir := pgtest.Dir(t)
	port, err := devcluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	users := fmt.Sprintf("%q %q\n", u.User.Username(), password)
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
default_pool_size = %d
max_client_conn = 200
%s`, u.Hostname(), u.Port(), port, filepath.Join(dir, "users.txt"), connections, settings)
	for name, text := range map[string]string{"users.txt": users, "pgbouncer.ini": config} {
		// Readable for the account that it runs as: it refuses to run as root.
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // the password is this test's
			t.Fatal(err)
		}
	}

	sup, err := supervisor.New(supervisor.Config{LogDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		sup.Stop(ctx)
	})
	part, err := sup.Start(supervisor.ProcessConfig{
		Name: "pgbouncer", Path: pgbouncerPath(t), Args: []string{filepath.Join(dir, "pgbouncer.ini")}, Account: unprivileged(t),
		Stage: supervisor.StageServers,
	})
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "127.0.0.1:" + strconv.Itoa(port)
	u.RawQuery = "sslmode=disable"
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(part.LogFile())
			t.Logf("log of PgBouncer:\n%s", log)
		}
	})
	sinktest.Eventually(t, "PgBouncer answers", func() bool {
		conn, err := pgx.Connect(t.Context(), u.String()+"&default_query_exec_mode=exec")
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
	return u.String()
}

func pgbouncerPath(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test needs PgBouncer: hack/install.sh pgbouncer installs it (Debian's package is pgbouncer)")
	return ""
}

// unprivileged returns the account for a server that refuses to run as root;
// nil if the test does not run as root.
func unprivileged(t *testing.T) *supervisor.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err == nil && err2 == nil {
			return &supervisor.Account{UID: uint32(uid), GID: uint32(gid)}
		}
	}
	t.Fatalf("PgBouncer does not run as root, and there is no other account: %v", errors.Join(errs...))
	return nil
}

func TestARandomRunThroughPgbouncerLeavesWhatTheModelSays(t *testing.T) {
	t.Parallel()
	seed := randomSeed(t)
	w := newWorld(t, seed, *eventsFlag/2+1, newModelDatabase(t))
	// Fewer connections than the writers have together.
	w.url = startPgbouncer(t, w.url, 3)
	w.run(t, 2)
	w.check(t)
}

func TestAWriterThatIsStoppedBehindPgbouncerHoldsUpNobody(t *testing.T) { //nolint:tparallel // its parts share a database, so they come one after the other
	t.Parallel()
	program := buildHelper(t)
	db := newStageDatabase(t)
	pooled := startPgbouncer(t, db, 3)
	for _, p := range places() {
		if p.committed || strings.HasPrefix(p.name, "before the") {
			continue
		}
		t.Run(p.name, func(t *testing.T) { meetFate(t, newStageBehind(t, program, db, pooled, p, "stopped"), p, "stopped") })
	}
}

// In transaction mode each transaction may use another connection of PgBouncer, which
// supports named statements only if max_prepared_statements is set.
func TestEveryModeOfPgbouncerGoesWithTheModesOfStatementsThatDocsName(t *testing.T) { //nolint:tparallel // its parts start a process each
	t.Parallel()
	const unnamed = "default_query_exec_mode=cache_describe default_query_exec_mode=describe_exec default_query_exec_mode=exec default_query_exec_mode=simple_protocol pgbouncer=true"
	const all = unnamed + " default_query_exec_mode=cache_statement"
	cases := map[string]string{"pool_mode = transaction\n": unnamed, "pool_mode = session\n": all}
	if keepsStatements(t) {
		cases = map[string]string{
			"pool_mode = transaction\nmax_prepared_statements = 0\n":  unnamed,
			"pool_mode = transaction\nmax_prepared_statements = 50\n": all,
			"pool_mode = session\n":                                   all,
		}
	}
	for settings, modes := range cases {
		t.Run(strings.ReplaceAll(settings, "\n", " "), func(t *testing.T) {
			db := sinktest.NewDatabase(t)
			url := startPgbouncerWith(t, db.Config().ConnString(), 3, settings)
			for _, mode := range strings.Fields(modes) {
				cfg, err := postgres.ParseConfig(url+"&"+mode, 5*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				cfg.MaxConns = 2 // in session mode each has a PgBouncer connection of its own
				pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
				var callers sync.WaitGroup
				for k := range 8 {
					callers.Go(func() {
						for i := range 25 {
							if _, err := w.Commit(t.Context(), sinktest.Order(fmt.Sprint(mode, "-", k, "-", i), 1)); err != nil {
								t.Errorf("%s: %v", mode, err)
								return
							}
						}
					})
				}
				callers.Wait()
				// A busy machine exceeds a claim timeout now and then.
				if s := w.Stats(); s.Retries > s.Batches/4 {
					t.Errorf("%s: %d batches were retried, of %d", mode, s.Retries, s.Batches)
				}
				if err := w.Close(t.Context()); err != nil {
					t.Error(err)
				}
				pool.Close()
			}
		})
	}
}

// keepsStatements reports whether PgBouncer is 1.21 or newer, which supports named statements.
func keepsStatements(t *testing.T) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), pgbouncerPath(t), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		t.Fatalf("version of PgBouncer %q: %v", out, err)
	}
	return major > 1 || minor >= 21
}
