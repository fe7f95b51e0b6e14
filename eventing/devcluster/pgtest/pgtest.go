// Package pgtest starts real PostgreSQL servers for tests.
//
// The tests of a package share a server, which the first of them starts. Each has its own
// database and role, so that all can run in parallel and none sees another's rows, counters
// or sessions. A test that restarts or stops the server has its own, with [Server], or a
// primary with a standby, with [Replicated].
//
// No server, database or file outlives the test binary, however it ends: a small shell waits
// for the end of a pipe that only the test binary holds, and then removes them.
//
// Without PostgreSQL a test fails, and its error names the package to install.
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
)

const startTimeout = 2 * time.Minute

// cluster is the test binary's shared server.
type cluster struct {
	server *devcluster.Postgres
	admin  *pgxpool.Pool

	mu        sync.Mutex
	templates map[string]*template
}

// shared returns the server of this test binary, which ends with the process.
var shared = sync.OnceValues(func() (*cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	dir, err := ProcessDir()
	if err != nil {
		return nil, err
	}
	d, err := start(ctx, dir, false)
	if err != nil {
		return nil, err
	}
	server := d.Postgres()
	admin, err := pgxpool.New(ctx, server.AdminURL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return &cluster{server: server, admin: admin, templates: make(map[string]*template)}, nil
})

// URL returns the URL of a new, empty database on the shared server. Its role owns the
// database, is not a superuser, and belongs to this test only. Both are dropped when the
// test ends.
func URL(tb testing.TB) string {
	tb.Helper()
	c := use(tb)
	name := newName()
	c.exec(tb, fmt.Sprintf("create role %s login password '%s'", name, name))
	c.exec(tb, fmt.Sprintf("create database %s owner %s template template0", name, name))
	c.dropAtEnd(tb, name)
	return c.url(name)
}

// Role creates another role, which may log in to a test's database and has no other
// privilege, and returns the URL with it. The role is dropped when the test ends, with
// everything that it owns.
func Role(tb testing.TB, databaseURL string) string {
	tb.Helper()
	c := use(tb)
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatalf("create a role: %v", err)
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

// SuperuserURL returns the URL with which the superuser logs in to a test's database, for
// an operator's work.
func SuperuserURL(tb testing.TB, databaseURL string) string {
	tb.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatalf("parse the URL of the test's database: %v", err)
	}
	return use(tb).server.AdminURL(strings.TrimPrefix(u.Path, "/"))
}

// template is a database that is copied.
type template struct {
	once sync.Once
	name string
	err  error
}

// Copy returns the URL of a new database with the objects that build creates, for this test
// only. Build is called once for each key in a test binary; the tests have copies, which are
// faster. Build may create objects in public and in new schemas.
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
	// First the objects, whose owner is changed in this database only, and then the
	// database; otherwise the owner of the template would change too.
	c.execIn(tb, name, fmt.Sprintf("reassign owned by %s to %s", tmpl.name, name))
	c.exec(tb, fmt.Sprintf("alter database %s owner to %s", name, name))
	return c.url(name)
}

func (c *cluster) buildTemplate(name string, build func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	// The superuser owns the template, so that reassigning the objects of the role does
	// not change the owner of the template.
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

// Server starts a server for this test only, which may restart, stop or kill it, with an
// empty database at its URL. It ends with the test.
func Server(tb testing.TB) *devcluster.Postgres {
	tb.Helper()
	return startForTest(tb, false).Postgres()
}

// Replicated starts a primary and a standby that follows it asynchronously, for this test
// only, which may kill the primary with commits that the standby lacks. Both end with the
// test.
func Replicated(tb testing.TB) *devcluster.Replicated {
	tb.Helper()
	return startForTest(tb, true).Replicated
}

func startForTest(tb testing.TB, standby bool) *devcluster.Deployment {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	d, err := start(ctx, Dir(tb), standby)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Stop(tb.Context()) })
	return d
}

func start(ctx context.Context, dir string, standby bool) (*devcluster.Deployment, error) {
	d, err := devcluster.New(devcluster.Config{
		Dir: dir, Standby: standby,
		Postgres: &devcluster.PostgresConfig{Settings: map[string]string{"max_connections": "300"}},
	})
	if err != nil {
		return nil, err
	}
	if err := d.Start(ctx); err != nil {
		d.Stop(ctx)
		return nil, err
	}
	return d, nil
}

// Dir creates a folder that every account may enter, as PostgreSQL needs if root runs the
// tests; other accounts cannot enter t.TempDir. It is removed when the test ends, or at the
// latest when the test binary ends.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := ProcessDir()
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

// newName returns a name for a database and its role that needs no quotes. It is also the
// role's password: the server listens on this machine only, and ends with the tests.
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

// ProcessDir creates a folder that every account may enter and that is removed when this
// process ends, however it ends: a shell, in its own process group, waits until the pipe
// to it closes. Then it ends the servers in the folder, and removes it.
func ProcessDir() (string, error) {
	dir, err := devcluster.TempDir("", "tandem-test-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), "/bin/sh", "-c", clearUp, "clear-up", dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Dir = filepath.Dir(dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, err := endlessPipe()
	if err != nil {
		return "", fmt.Errorf("create a pipe: %w", err)
	}
	defer func() { _ = reader.Close() }()
	cmd.Stdin = reader
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the shell that removes the test's folder: %w", err)
	}
	return dir, nil
}

// endlessPipe returns the reading end of a pipe whose writing end stays open as long as this
// process lives, and in no other process: a bare descriptor, because an unreferenced os.File
// is closed when it is collected.
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

// clearUp ends the servers in $1 with an immediate shutdown, waits until they have ended, and
// removes the folder, and the data if it is elsewhere.
const clearUp = `
cat >/dev/null
for data in "$1/postgres" "$1"/*/postgres; do
	data=$(readlink "$data" || echo "$data")
	pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
	tries=0
	while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do
		sleep 0.1
		tries=$((tries + 1))
	done
	rm -rf "$data"
done
rm -rf "$1"
`
