package devcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgbin"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

const (
	pgSuperuser = "postgres"
	pgReadyPoll = 50 * time.Millisecond

	// pgFreeTimeout bounds the shutdown of a server whose supervisor was killed: in an
	// immediate shutdown its sessions have five seconds.
	pgFreeTimeout = 8 * time.Second
)

// PostgresConfig is the configuration of a [Postgres].
type PostgresConfig struct {
	// Name is the name of the process. Defaults to postgres.
	Name string

	// Dir holds the server's data, in Dir/postgres, and its password, in Dir/pgpass.
	// Required; a [Deployment] sets it; created if missing. If root starts the server and
	// the account that runs it cannot enter Dir, Dir/postgres is a link to a folder
	// elsewhere.
	Dir string

	// Port is the port on 127.0.0.1. Defaults to a free one, which does not change.
	Port int

	// BinDir is the folder of initdb, pg_ctl and postgres. Defaults to TANDEM_PG_BIN,
	// then to the result of [pgbin.Find], which may download them.
	BinDir string

	// Database is the name of the database and of the role that owns it.
	// Defaults to tandem.
	Database string

	// Settings are added to the server's, for example max_connections.
	Settings map[string]string

	// Grace bounds a fast shutdown, and then an immediate one. Defaults to 1 s.
	Grace time.Duration

	// StartTimeout bounds a start, including the recovery after a crash, and then the
	// creation of the database, but not the download of the programs. Defaults to 60 s.
	StartTimeout time.Duration
}

func (c PostgresConfig) withDefaults() PostgresConfig {
	c.Name = cmp.Or(c.Name, "postgres")
	c.Database = cmp.Or(c.Database, "tandem")
	c.Grace = cmp.Or(c.Grace, supervisor.DefaultGrace)
	c.StartTimeout = cmp.Or(c.StartTimeout, time.Minute)
	return c
}

// Postgres is a running PostgreSQL server that listens on 127.0.0.1 only, writes its log
// to disk at each commit (fsync and synchronous_commit are on), and is restarted when it
// ends. It is safe for concurrent use.
type Postgres struct {
	cfg     PostgresConfig
	bin     pgbin.Install
	data    pgData
	process *supervisor.Process
}

// StartPostgres starts a server on the data in cfg.Dir, which it creates if missing, and
// waits until the server answers. The error is one line: the cause, and what to do.
func StartPostgres(ctx context.Context, sup *supervisor.Supervisor, cfg PostgresConfig) (*Postgres, error) {
	p, err := startPostgres(ctx, sup, cfg, (*pgData).init)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	for {
		err := p.createDatabase(ctx)
		if err == nil {
			return p, nil
		}
		// The server may have been killed meanwhile.
		if isAnswer(err) || p.WaitUntilReady(ctx) != nil {
			p.Stop(ctx)
			return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
		}
	}
}

// startPostgres starts a server on the data in cfg.Dir, after prepare has created it, and
// waits until the server answers.
func startPostgres(ctx context.Context, sup *supervisor.Supervisor, cfg PostgresConfig, prepare func(*pgData, context.Context, pgbin.Install) error) (*Postgres, error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" {
		return nil, errors.New("start PostgreSQL: Dir is missing")
	}
	data, err := openPGData(ctx, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	bin, err := pgbin.Find(ctx, pgbin.Config{BinDir: cfg.BinDir, Major: data.major})
	switch {
	case err != nil && data.major != 0:
		return nil, fmt.Errorf("%w; PostgreSQL %d created the data in %s (`make clean` removes it)", err, data.major, data.dir)
	case err != nil:
		return nil, err
	}
	// StartTimeout does not bound the download.
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	if cfg.Port == 0 {
		if cfg.Port, err = FreePort(); err != nil {
			return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
		}
	}
	if err := prepare(&data, ctx, bin); err != nil {
		return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	free, cancelFree := context.WithTimeout(ctx, pgFreeTimeout)
	defer cancelFree()
	if err := data.waitUntilFree(free); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}

	p := &Postgres{cfg: cfg, bin: bin, data: data}
	p.process, err = sup.Start(p.describe())
	if err != nil {
		return nil, err
	}
	if err := p.WaitUntilReady(ctx); err != nil {
		p.Stop(ctx)
		return nil, err
	}
	return p, nil
}

func (p *Postgres) describe() supervisor.ProcessConfig {
	settings := map[string]string{
		"port":                       strconv.Itoa(p.cfg.Port),
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    "",
		"fsync":                      "on",
		"synchronous_commit":         "on",
		"full_page_writes":           "on",
		"logging_collector":          "off",
		"log_destination":            "stderr",
		"log_line_prefix":            "%m [%p] %q%u@%d ",
		"lc_messages":                "C",
		"log_timezone":               "UTC",
		"timezone":                   "UTC",
		"max_connections":            "100",
		"cluster_name":               "tandem",
		"restart_after_crash":        "on",
		"log_min_duration_statement": "5s",
	}
	maps.Copy(settings, p.cfg.Settings)
	args := []string{"-D", p.data.dir}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return supervisor.ProcessConfig{
		Name:    p.cfg.Name,
		Path:    p.bin.Program("postgres"),
		Args:    args,
		Env:     p.data.env(),
		Dir:     p.data.dir,
		Stage:   supervisor.StageServers,
		Grace:   p.cfg.Grace,
		Account: p.data.account,
		// Fast first: sessions end, and a checkpoint is written. Then immediate.
		StopSignals: []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT},
		DeathSignal: syscall.SIGQUIT,
		// A server that pg_ctl restart has started is not a child of this process.
		Before: func(ctx context.Context) { _ = p.data.waitUntilFree(ctx) },
		After:  func(ctx context.Context) { p.data.end(ctx, p.cfg.Grace) },
	}
}

// Process returns the server's process.
func (p *Postgres) Process() *supervisor.Process { return p.process }

// Port returns the port that the server listens on.
func (p *Postgres) Port() int { return p.cfg.Port }

// DataDir returns the server's data folder, with symbolic links resolved.
func (p *Postgres) DataDir() string { return p.data.dir }

// BinDir returns the folder of the server's programs, pg_ctl among them.
func (p *Postgres) BinDir() string { return p.bin.Dir }

// Psql returns a command line that opens the database: with the psql of the PATH, or
// else with the server's, which not every pinned build has.
func (p *Postgres) Psql() string {
	program := "psql"
	if _, err := exec.LookPath(program); err != nil {
		if own, err := exec.LookPath(p.bin.Program(program)); err == nil {
			program = own
		}
	}
	return fmt.Sprintf("%s '%s'", program, p.URL())
}

// Version returns the server's major version, at least [pgbin.MinMajor].
func (p *Postgres) Version() int { return p.bin.Major }

// URL returns the URL of the database as the role that owns it. It has the name of the
// password file instead of the password, so it can be printed and logged.
func (p *Postgres) URL() string { return p.url(p.cfg.Database, p.cfg.Database) }

// AdminURL returns the URL of a database as the superuser, also without the password.
func (p *Postgres) AdminURL(database string) string { return p.url(pgSuperuser, database) }

func (p *Postgres) url(role, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(role),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(p.cfg.Port)),
		Path:     "/" + database,
		RawQuery: "passfile=" + escapeValue(p.data.passFile) + "&sslmode=disable",
	}
	return u.String()
}

// escapeValue escapes the name of a file for the query of a URL. Slashes stay readable, and a
// blank becomes %20, because libpq does not decode a plus.
func escapeValue(s string) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(s))
}

// Crash ends the server like a loss of power, by an immediate shutdown (pg_ctl -m
// immediate), and waits until it answers again.
func (p *Postgres) Crash(ctx context.Context) error {
	return p.restart(ctx, syscall.SIGQUIT)
}

// Restart ends the server by a fast shutdown and waits until it answers again.
func (p *Postgres) Restart(ctx context.Context) error {
	return p.restart(ctx, syscall.SIGINT)
}

func (p *Postgres) restart(ctx context.Context, sig syscall.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	ended := p.process.Ended()
	if err := p.process.Kill(sig); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("wait for PostgreSQL to end: %w", context.Cause(ctx))
	}
	return p.WaitUntilReady(ctx)
}

// Stop stops the server permanently: by a fast shutdown, then by an immediate one.
func (p *Postgres) Stop(ctx context.Context) {
	p.process.Stop(ctx)
}

// WaitUntilReady waits until the server answers. If the server cannot start, the error
// has the cause.
func (p *Postgres) WaitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	for {
		err := p.ping(ctx)
		if err == nil {
			return nil
		}
		if p.process.Pid() == 0 && p.process.Failed() {
			if reason, fatal := p.whyDead(); fatal {
				return fmt.Errorf("PostgreSQL cannot start: %s", reason)
			}
		}
		select {
		case <-time.After(pgReadyPoll):
		case <-ctx.Done():
			return fmt.Errorf("PostgreSQL does not answer on port %d: %w; its log is %s", p.cfg.Port, err, p.process.LogFile())
		}
	}
}

func (p *Postgres) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return p.asSuperuser(ctx, func(conn *pgx.Conn) error { return conn.Ping(ctx) })
}

// asSuperuser calls do with a connection as the superuser.
func (p *Postgres) asSuperuser(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, p.AdminURL(pgSuperuser))
	if err != nil {
		return fmt.Errorf("connect as %s: %w", pgSuperuser, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return do(conn)
}

// whyDead returns the cause from the server's log, and whether it is fatal. A temporary
// cause is not: the processes of a killed server need a moment to end.
func (p *Postgres) whyDead() (reason string, fatal bool) {
	lines := p.process.LogTail()
	var hint string
	for _, line := range slices.Backward(lines) {
		_, text, ok := strings.Cut(line, "HINT:  ")
		if ok && hint == "" {
			hint = text
		}
		for _, level := range []string{"FATAL:  ", "PANIC:  ", "ERROR:  "} {
			if _, text, ok := strings.Cut(line, level); ok {
				reason = text
				break
			}
		}
		if reason != "" {
			break
		}
	}
	switch {
	case strings.Contains(reason, "pre-existing shared memory block"):
		return reason, false
	case strings.Contains(reason, "could not create any TCP/IP sockets"):
		return fmt.Sprintf("port %d on 127.0.0.1 is in use: stop the process that listens on it, or choose another port", p.cfg.Port), true
	case strings.Contains(strings.Join(lines, "\n"), "No space left on device"):
		return fmt.Sprintf("no space left on the disk of %s: make room, then start again", p.data.dir), true
	case reason == "" && len(lines) > 0:
		reason = lines[len(lines)-1]
	case reason == "":
		reason = "it ended without a log message"
	}
	if hint != "" {
		reason += " (" + hint + ")"
	}
	return supervisor.Shorten(reason) + "; its log is " + p.process.LogFile() + ", `make clean` removes the data", true
}

// createDatabase creates the role and the database if they are missing.
func (p *Postgres) createDatabase(ctx context.Context) error {
	name := pgx.Identifier{p.cfg.Database}.Sanitize()
	return p.asSuperuser(ctx, func(conn *pgx.Conn) error {
		for _, s := range []struct{ what, sql, exists string }{
			{"create role", "create role " + name + " login password '" + p.data.password + "'", "42710"}, // duplicate_object
			{"create database", "create database " + name + " owner " + name, "42P04"},                    // duplicate_database
			// By default a role's tables are created in the schema with its name, if it
			// exists, and role tandem would find schema tandem, which is for Tandem's own
			// tables.
			{"set search path of role", "alter role " + name + " set search_path = public", ""},
		} {
			if _, err := conn.Exec(ctx, s.sql); err != nil && !hasCode(err, s.exists) {
				return fmt.Errorf("%s %s: %w", s.what, p.cfg.Database, err)
			}
		}
		return nil
	})
}

func hasCode(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

// isAnswer reports whether the server rejected a request, other than because it is
// starting or ending (class 57).
func isAnswer(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && !strings.HasPrefix(pgErr.Code, "57")
}

// mkdirFor creates a folder that belongs to account, with mode 0700.
func mkdirFor(dir string, account *supervisor.Account) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return chown(dir, account)
}

func chown(file string, account *supervisor.Account) error {
	if account == nil {
		return nil
	}
	return os.Chown(file, int(account.UID), int(account.GID))
}
