package devcluster_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// openDir returns a temporary folder that the account which runs PostgreSQL may enter;
// it cannot enter t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tandem-local-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startPostgres(t *testing.T, sup *supervisor.Supervisor, cfg devcluster.PostgresConfig) *devcluster.Postgres {
	t.Helper()
	p, err := devcluster.StartPostgres(t.Context(), sup, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, url, sql string) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var v T
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func TestPostgresKeepsItsDataFromRunToRun(t *testing.T) {
	t.Parallel()

	dir := openDir(t)
	for i := range 2 {
		sup := newSupervisor(t, supervisor.Config{})
		p := startPostgres(t, sup, devcluster.PostgresConfig{Dir: dir})
		if i == 0 {
			execute(t, p.URL(), "create table kept as select 7 as a")
		} else if got := query[int](t, p.URL(), "select a from kept"); got != 7 {
			t.Errorf("what the first run wrote is %d now, want 7", got)
		}
		sup.Stop(t.Context())
	}
}

func TestPostgresIsDurableAndListensOnlyHere(t *testing.T) {
	t.Parallel()

	p := startPostgres(t, newSupervisor(t, supervisor.Config{}), devcluster.PostgresConfig{Dir: openDir(t)})
	for setting, want := range map[string]string{
		"fsync":                   "on",
		"synchronous_commit":      "on",
		"full_page_writes":        "on",
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"server_encoding":         "UTF8",
		"data_checksums":          "on",
		"password_encryption":     "scram-sha-256",
	} {
		if got := query[string](t, p.AdminURL("postgres"), "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	if query[bool](t, p.URL(), "select rolsuper from pg_roles where rolname = current_user") {
		t.Error("the role of URL() is a superuser")
	}
	execute(t, p.URL(), "create schema tandem; create table kept ()")
	if got := query[string](t, p.URL(), "select schemaname from pg_tables where tablename = 'kept'"); got != "public" {
		t.Errorf("a table goes into schema %s, want public", got)
	}
	info, err := os.Stat(filepath.Join(filepath.Dir(p.DataDir()), "pgpass"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the password's file has mode %v, want 0600", info.Mode().Perm())
	}
	wrong, err := url.Parse(p.URL())
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("tandem", "wrong")
	if conn, err := pgx.Connect(t.Context(), wrong.String()); err == nil {
		_ = conn.Close(t.Context())
		t.Error("a wrong password is accepted")
	}
}

func TestPostgresComesBackAfterKillAndCrash(t *testing.T) {
	t.Parallel()

	p := startPostgres(t, newSupervisor(t, supervisor.Config{RestartDelay: 100 * time.Millisecond}),
		devcluster.PostgresConfig{Dir: openDir(t)})
	if err := p.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A killed server leaves its lock file, here with the pid of a running process:
	// this one.
	pid := p.Process().Pid()
	if err := p.Process().Kill(9); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(p.DataDir(), "postmaster.pid")
	if content, err := os.ReadFile(lock); err == nil {
		other := strings.Replace(string(content), strconv.Itoa(pid), strconv.Itoa(os.Getpid()), 1)
		_ = os.WriteFile(lock, []byte(other), 0o600)
	}
	eventtest.Eventually(t, "it answers again", func() bool {
		conn, err := pgx.Connect(t.Context(), p.URL())
		if err != nil {
			return false
		}
		_ = conn.Close(t.Context())
		return true
	})
}

func TestPostgresThatSomebodyElseRestartedEndsToo(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{RestartDelay: time.Hour})
	p := startPostgres(t, sup, devcluster.PostgresConfig{Dir: openDir(t)})
	cmd := exec.CommandContext(t.Context(), p.BinDir()+"/pg_ctl", "-D", p.DataDir(), "-m", "immediate", "-w", "-l", "/dev/null", "restart")
	cmd.Dir = p.DataDir()
	if info, err := os.Stat(p.DataDir()); err == nil && os.Geteuid() == 0 {
		owner := info.Sys().(*syscall.Stat_t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, p.URL(), "select 7"); got != 7 || p.Process().Pid() != 0 {
		t.Errorf("select 7 is %d, our own process is %d; want that the other one answers", got, p.Process().Pid())
	}
	sup.Stop(t.Context())
	if _, err := os.Stat(filepath.Join(p.DataDir(), "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other one is still there: %v", err)
	}
}

func TestPostgresGoesWhereItsAccountCanEnter(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("only root has somebody else to run PostgreSQL as")
		return
	}

	closed := t.TempDir() // 0700, like /root
	p := startPostgres(t, newSupervisor(t, supervisor.Config{}), devcluster.PostgresConfig{Dir: closed})
	t.Cleanup(func() { _ = os.RemoveAll(p.DataDir()) })
	if strings.HasPrefix(p.DataDir(), closed) {
		t.Errorf("data in %s, which the server's account cannot enter", p.DataDir())
	}
	link, err := os.Readlink(filepath.Join(closed, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if link != p.DataDir() {
		t.Errorf("the link leads to %s, the data is in %s", link, p.DataDir())
	}
	if got := query[int](t, p.URL(), "select 1"); got != 1 {
		t.Errorf("select 1 is %d", got)
	}
}

func TestPostgresSaysWhatIsWrongInOneLine(t *testing.T) {
	t.Parallel()

	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })

	for _, tt := range []struct {
		name  string
		cfg   devcluster.PostgresConfig
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{
			name: "taken port",
			cfg:  devcluster.PostgresConfig{Port: taken.Addr().(*net.TCPAddr).Port},
			want: "is in use: stop the process that listens on it",
		},
		{
			name: "setting that does not exist",
			cfg:  devcluster.PostgresConfig{Settings: map[string]string{"max_conections": "3"}},
			want: `unrecognized configuration parameter "max_conections"`,
		},
		{
			name: "folder without a server",
			cfg:  devcluster.PostgresConfig{BinDir: "/nonexistent"},
			want: "no PostgreSQL server found: need version 15 or newer in /nonexistent",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			tt.cfg.Dir = openDir(t)
			_, err := devcluster.StartPostgres(t.Context(), newSupervisor(t, supervisor.Config{}), tt.cfg)
			if err == nil {
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestPostgresDoesNotShareItsData(t *testing.T) {
	t.Parallel()

	dir := openDir(t)
	startPostgres(t, newSupervisor(t, supervisor.Config{}), devcluster.PostgresConfig{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it does not wait for the other one
	defer cancel()
	_, err := devcluster.StartPostgres(ctx, newSupervisor(t, supervisor.Config{}), devcluster.PostgresConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "another PostgreSQL (pid ") {
		t.Errorf("second server on the same data: %v, want that another one works on it", err)
	}
}
