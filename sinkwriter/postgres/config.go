package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// nextHostTimeout bounds the attempt at one of several hosts, unless connect_timeout is set:
// the next host may be the primary.
const nextHostTimeout = 2 * time.Second

// pingTimeout bounds the check of a connection that was idle for a second, unless
// pool_ping_timeout is set. After it the pool uses another connection.
const pingTimeout = 2 * time.Second

// ParseConfig returns the configuration of a pool for a connection string, which is a URL or
// keywords and values. Each new connection parses the string again. A host that does not answer
// has connectTimeout, unless connect_timeout is set; one of several hosts has at most 2 s. The
// error contains no part of the string except the names of options and files. Callers may
// change MaxConns, MinConns, and in ConnConfig DialFunc, ConnectTimeout and RuntimeParams.
func ParseConfig(connString string, connectTimeout time.Duration) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, withoutSecrets(err)
	}
	o, err := configure(cfg.ConnConfig)
	if err != nil {
		return nil, err
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
		if len(hostsOf(&cfg.ConnConfig.Config)) > 1 {
			cfg.ConnConfig.ConnectTimeout = min(connectTimeout, nextHostTimeout)
		}
	}
	if cfg.PingTimeout == 0 {
		cfg.PingTimeout = pingTimeout
	}
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { return prepare(c, connString, o) }
	cfg.BeforeClose = func(conn *pgx.Conn) { endSoon(conn.PgConn()) }
	return cfg, nil
}

// Connect returns one connection for a connection string, for programs that need no pool.
func Connect(ctx context.Context, connString string, connectTimeout time.Duration) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", withoutSecrets(err))
	}
	o, err := configure(cfg)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if err := prepare(cfg, connString, o); err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// configure removes our options from the settings that the driver would send to the
// server, and applies those that are the same for all connections.
func configure(cfg *pgx.ConnConfig) (options, error) {
	o, err := takeOptions(cfg)
	if err != nil {
		return o, err
	}
	if o.execMode {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	cfg.DialFunc = o.dialer().DialContext
	if len(o.addresses) > 0 {
		lookup := cfg.LookupFunc
		cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
			if address, ok := o.addresses[host]; ok {
				return []string{address}, nil
			}
			return lookup(ctx, host)
		}
	}
	return o, nil
}

// prepare completes the configuration of one connection with the current contents of the
// files that the connection string names.
func prepare(cfg *pgx.ConnConfig, connString string, o options) error {
	fresh, err := pgx.ParseConfig(connString)
	if err != nil {
		return withoutSecrets(err)
	}
	cfg.Host, cfg.Port, cfg.Database, cfg.User = fresh.Host, fresh.Port, fresh.Database, fresh.User
	cfg.Password, cfg.TLSConfig, cfg.Fallbacks = fresh.Password, fresh.TLSConfig, fresh.Fallbacks
	if err := o.readPassword(cfg); err != nil {
		return err
	}
	o.limitTLS(cfg)
	if o.shuffle {
		shuffleHosts(&cfg.Config)
	}
	limitClose(&cfg.Config)
	return nil
}

// shuffleHosts puts the hosts in a random order. The attempts at one host, with TLS and without,
// stay together.
func shuffleHosts(cfg *pgconn.Config) {
	hosts := hostsOf(cfg)
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	var attempts []*pgconn.FallbackConfig
	for _, host := range hosts {
		attempts = append(attempts, host...)
	}
	cfg.Host, cfg.Port, cfg.TLSConfig = attempts[0].Host, attempts[0].Port, attempts[0].TLSConfig
	cfg.Fallbacks = attempts[1:]
}

// hostsOf returns the attempts at each host.
func hostsOf(cfg *pgconn.Config) (hosts [][]*pgconn.FallbackConfig) {
	attempts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	for i, a := range attempts {
		if i > 0 && attempts[i-1].Host == a.Host && attempts[i-1].Port == a.Port {
			hosts[len(hosts)-1] = append(hosts[len(hosts)-1], a)
			continue
		}
		hosts = append(hosts, []*pgconn.FallbackConfig{a})
	}
	return hosts
}

// errSyntax replaces the parser's error for an invalid connection string. The parser's
// error repeats parts of the string, which may include the password.
var errSyntax = errors.New("want postgres://USER:PASSWORD@HOST:5432/NAME?OPTION=VALUE, or OPTION=VALUE with blanks between; special characters of a password are percent-encoded in a URL, and quoted otherwise")

// harmless are the beginnings of parser messages that contain no part of the string except
// names of options and files.
var harmless = []string{
	"failed to configure TLS", "failed to read service", "invalid sslcertmode", "invalid connect_timeout",
	"unknown target_session_attrs value", "unknown channel_binding value", "invalid require_auth", "invalid min_protocol_version",
	"invalid max_protocol_version", "min_protocol_version", "invalid default_query_exec_mode", "cannot parse statement_cache_capacity",
	"cannot parse description_cache_capacity", "cannot parse pool_", "pool_", "could not match",
}

// withoutSecrets removes the connection string from an error of the parser.
func withoutSecrets(err error) error {
	text := err.Error()
	for _, message := range harmless {
		if i := strings.LastIndex(text, "`: "+message); i >= 0 {
			return errors.New(text[i+len("`: "):])
		}
	}
	var file *fs.PathError
	if errors.As(err, &file) {
		return fmt.Errorf("read a file that it names: %w", file)
	}
	return errSyntax
}
