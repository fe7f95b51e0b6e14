// Package pgtest gives tests a real PostgreSQL server.
//
// Tests of one package share a server, which is started when the first of them
// asks, and each gets a database and a role of its own, so that all can run in
// parallel and none sees another's rows, counters or sessions. A test that
// restarts or stops the server takes one for itself, with [Server], or a pair of
// which one fails over to the other, with [Replicated].
//
// No server, database or file outlives the test binary, however it ends: a small
// shell waits for the end of a pipe that only the test binary holds, and clears
// up after it.
//
// A machine without PostgreSQL fails the test, with what to install.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

const startTimeout = 2 * time.Minute

// cluster is the test binary's shared server.
type cluster struct {
	server *devcluster.Postgres
	admin  *pgxpool.Pool

	mu        sync.Mutex
	templates map[string]*template
}

// shared is one for each test binary: its tests have no other place in common.
// It ends with the process.
var shared = sync.OnceValues(func() (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	sup, err := supervisor.New(supervisor.Config{LogDir: dir})
	if err != nil {
		return nil, err
	}
	server, err := start(ctx, sup, dir)
	if err != nil {
		return nil, err
	}
	admin, err := pgxpool.New(ctx, server.AdminURL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return &cluster{server: server, admin: admin, templates: make(map[string]*template)}, nil
})

// URL gives the URL of a new, empty database on the test binary's server. The role
// in it owns the database, is no superuser, and is used by this test only. Both
// are dropped when the test ends.
func URL(tb testing.TB) string {
	tb.Helper()
	c := use(tb)
	name := newName()
	c.exec(tb, fmt.Sprintf("create role %s login password '%s'", name, name))
	c.exec(tb, fmt.Sprintf("create database %s owner %s template template0", name, name))
	c.dropAtEnd(tb, name)
	return c.url(name)
}

// Role makes one more role, which may log in to a test's database and owns and may
// do nothing, and gives the URL by which it does. It is dropped when the test ends,
// with what it has made.
func Role(tb testing.TB, databaseURL string) string {
	tb.Helper()
	c := use(tb)
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatalf("make a role: %v", err)
	}
	database := strings.TrimPrefix(u.Path, "/")
	name := newName()
	c.exec(tb, fmt.Sprintf("create role %s login password '%s'", name, name))
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		err := c.inDatabase(ctx, database, "drop owned by "+name+" cascade")
		if err == nil {
			_, err = c.admin.Exec(ctx, "drop role "+name)
		}
		if err != nil {
			tb.Errorf("drop the test's role: %v", err)
		}
	})
	u.User = url.UserPassword(name, name)
	return u.String()
}

// SuperuserURL gives the URL by which the superuser logs in to a test's database,
// for what an operator would do.
func SuperuserURL(tb testing.TB, databaseURL string) string {
	tb.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatalf("find the test's database: %v", err)
	}
	return use(tb).server.AdminURL(strings.TrimPrefix(u.Path, "/"))
}

// template is a database that others are copied from.
type template struct {
	once sync.Once
	name string
	err  error
}

// Copy gives the URL of a new database that holds what build has made, likewise a
// test's own. Build is called once for each key in a test binary, whichever test
// comes first; the tests get copies, which is quicker than building each. What
// build makes must be in schemas of its own or in public.
func Copy(tb testing.TB, key string, build func(ctx context.Context, databaseURL string) error) string {
	tb.Helper()
	c := use(tb)
	c.mu.Lock()
	tmpl := c.templates[key]
	if tmpl == nil {
		tmpl = &template{name: newName()}
		c.templates[key] = tmpl
	}
	c.mu.Unlock()
	tmpl.once.Do(func() { tmpl.err = c.buildTemplate(tmpl.name, build) })
	if tmpl.err != nil {
		tb.Fatalf("build the template %q: %v", key, tmpl.err)
	}

	name := newName()
	c.exec(tb, fmt.Sprintf("create role %s login password '%s'", name, name))
	c.exec(tb, fmt.Sprintf("create database %s template %s", name, tmpl.name))
	c.dropAtEnd(tb, name)
	// First the objects, whose owner is looked for in this database only; and
	// the database last, or the template would change hands too.
	c.execIn(tb, name, fmt.Sprintf("reassign owned by %s to %s", tmpl.name, name))
	c.exec(tb, fmt.Sprintf("alter database %s owner to %s", name, name))
	return c.url(name)
}

func (c *cluster) buildTemplate(name string, build func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	// The superuser owns the template, so that reassigning what the role owns
	// does not take the template along.
	for _, sql := range []string{
		fmt.Sprintf("create role %s login password '%s'", name, name),
		fmt.Sprintf("create database %s template template0", name),
		fmt.Sprintf("grant all on database %s to %s", name, name),
	} {
		if _, err := c.admin.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := c.inDatabase(ctx, name, "grant all on schema public to "+name); err != nil {
		return err
	}
	return build(ctx, c.url(name))
}

// Server starts a server for this test only, to be restarted, stopped or killed,
// with an empty database at its URL. It ends with the test.
func Server(tb testing.TB) *devcluster.Postgres {
	tb.Helper()
	dir := Dir(tb)
	sup := startSupervisor(tb, dir)
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	server, err := start(ctx, sup, dir)
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// startSupervisor starts a supervisor that ends with the test.
func startSupervisor(tb testing.TB, dir string) *supervisor.Supervisor {
	tb.Helper()
	sup, err := supervisor.New(supervisor.Config{LogDir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 5*time.Second)
		defer cancel()
		sup.Stop(ctx)
	})
	return sup
}

// Replicated starts a primary and a standby that follows it asynchronously, for
// this test only: to kill the one with commits that the other one has not got, and
// promote that. Both end with the test.
func Replicated(tb testing.TB) *devcluster.Replicated {
	tb.Helper()
	primary, standby := config(Dir(tb)), config(Dir(tb))
	sup := startSupervisor(tb, primary.Dir)
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	r, err := devcluster.StartReplicated(ctx, sup, primary, standby)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Dir makes a folder that every account may enter, as PostgreSQL's must be able to
// if root runs the tests; t.TempDir is closed to others. It is removed with all
// that is in it when the test ends, at the latest when the test binary does.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := makeDir()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func use(tb testing.TB) *cluster {
	tb.Helper()
	c, err := shared()
	if err != nil {
		tb.Fatalf("start PostgreSQL for the tests: %v", err)
	}
	return c
}

func start(ctx context.Context, sup *supervisor.Supervisor, dir string) (*devcluster.Postgres, error) {
	return devcluster.StartPostgres(ctx, sup, config(dir))
}

func config(dir string) devcluster.PostgresConfig {
	return devcluster.PostgresConfig{
		Dir:      dir,
		Settings: map[string]string{"max_connections": "300"},
	}
}

// newName makes a name for a database and its role that needs no quotes. It is
// the role's password too: the server listens on this machine only, and ends.
func newName() string {
	return "t" + strings.ToLower(rand.Text())
}

func (c *cluster) url(name string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(name, name),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.server.Port())),
		Path:     "/" + name,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (c *cluster) exec(tb testing.TB, sql string) {
	tb.Helper()
	if _, err := c.admin.Exec(tb.Context(), sql); err != nil {
		tb.Fatalf("prepare a database: %v", err)
	}
}

func (c *cluster) execIn(tb testing.TB, database, sql string) {
	tb.Helper()
	if err := c.inDatabase(tb.Context(), database, sql); err != nil {
		tb.Fatalf("prepare a database: %v", err)
	}
}

func (c *cluster) inDatabase(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, c.server.AdminURL(database))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

func (c *cluster) dropAtEnd(tb testing.TB, name string) {
	tb.Helper()
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
		defer cancel()
		for _, sql := range []string{
			fmt.Sprintf("drop database if exists %s with (force)", name),
			"drop role if exists " + name,
		} {
			if _, err := c.admin.Exec(ctx, sql); err != nil {
				tb.Errorf("drop the test's database: %v", err)
			}
		}
	})
}

// makeDir makes a folder that goes when this process does, however it ends: a
// shell, in a process group of its own, waits until the pipe to it closes.
// A server that works in the folder is ended first.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "tandem-test-")
	if err != nil {
		return "", fmt.Errorf("make folder for a test: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("open the test's folder to others: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", clearUp, "clear-up", dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = filepath.Dir(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, err := endlessPipe()
	if err != nil {
		return "", fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = reader.Close() }()
	cmd.Stdin = reader
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the shell that clears up after the test: %w", err)
	}
	return dir, nil
}

// endlessPipe gives the reading end of a pipe whose writing end stays open as
// long as this process lives, and in no other: a bare descriptor, since an
// os.File that nobody holds is closed when it is collected.
func endlessPipe() (*os.File, error) {
	var fds [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := syscall.Pipe(fds[:]); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "clear-up"), nil
}

// clearUp ends the server in $1 with an immediate shutdown, waits until it is
// gone, and removes the folder, and the data where that lies elsewhere.
const clearUp = `
cat >/dev/null
data=$(readlink "$1/postgres" || echo "$1/postgres")
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
tries=0
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do
	sleep 0.1
	tries=$((tries + 1))
done
rm -rf "$1" "$data"
`
