package postgres

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// defaultUserTimeout is how long sent data may stay unacknowledged before the kernel
	// ends the connection.
	defaultUserTimeout = 10 * time.Second

	// An idle connection is probed after defaultIdle, then every defaultInterval, and ended
	// after defaultCount probes without an answer.
	defaultIdle     = 5 * time.Second
	defaultInterval = 2 * time.Second
	defaultCount    = 3
)

// options holds the libpq options that the driver does not support, and our own.
type options struct {
	userTimeout  time.Duration
	keepAlive    net.KeepAliveConfig
	addresses    map[string]string // by host
	passwordFile string
	minTLS       uint16
	maxTLS       uint16
	shuffle      bool
	execMode     bool
}

// unsupported maps the libpq options that do not work here to the reason.
var unsupported = map[string]string{
	"sslcrl":              "certificates are not checked against revocation lists",
	"sslcrldir":           "certificates are not checked against revocation lists",
	"sslkeylogfile":       "keys of connections are not logged",
	"requirepeer":         "the owner of a Unix socket is not checked",
	"gsslib":              "there is no GSS authentication",
	"replication":         "a replication connection runs no transactions",
	"scram_client_key":    "the keys are derived from the password",
	"scram_server_key":    "the keys are derived from the password",
	"oauth_issuer":        "there is no OAuth flow; for a token in place of a password use password_file",
	"oauth_client_id":     "there is no OAuth flow; for a token in place of a password use password_file",
	"oauth_scope":         "there is no OAuth flow; for a token in place of a password use password_file",
	"oauth_client_secret": "there is no OAuth flow; for a token in place of a password use password_file",
}

// takeOptions removes the options from the settings that the driver would send to the server.
// The error names the option.
func takeOptions(cfg *pgx.ConnConfig) (options, error) {
	o := options{
		userTimeout: defaultUserTimeout,
		keepAlive:   net.KeepAliveConfig{Enable: true, Idle: defaultIdle, Interval: defaultInterval, Count: defaultCount},
	}
	settings := cfg.RuntimeParams
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if why, ok := unsupported[name]; ok {
			return o, fmt.Errorf("option %s is not supported: %s", name, why)
		}
		if parse, ok := parsers[name]; ok {
			value := settings[name]
			delete(settings, name)
			if err := parse(&o, value, cfg); err != nil {
				return o, fmt.Errorf("option %s: %w", name, err)
			}
		}
	}
	return o, nil
}

// parsers maps the names of options to their parsers.
var parsers = map[string]func(o *options, value string, cfg *pgx.ConnConfig) error{
	"gssencmode":     oneOf("disable", "prefer"),
	"gssdelegation":  oneOf("0"),
	"sslcompression": oneOf("0", "1"), // without effect in libpq, too
	"client_encoding": func(_ *options, value string, _ *pgx.ConnConfig) error {
		switch strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(value)) {
		case "utf8", "unicode", "auto":
			return nil
		}
		return fmt.Errorf("want UTF8, as events are Unicode")
	},
	"fallback_application_name": func(_ *options, value string, cfg *pgx.ConnConfig) error {
		cfg.RuntimeParams["application_name"] = cmp.Or(cfg.RuntimeParams["application_name"], value)
		return nil
	},
	"keepalives": func(o *options, value string, _ *pgx.ConnConfig) error {
		n, err := number(value)
		o.keepAlive.Enable = n != 0
		return err
	},
	"keepalives_idle":     seconds(func(o *options) *time.Duration { return &o.keepAlive.Idle }, defaultIdle),
	"keepalives_interval": seconds(func(o *options) *time.Duration { return &o.keepAlive.Interval }, defaultInterval),
	"keepalives_count": func(o *options, value string, _ *pgx.ConnConfig) error {
		n, err := number(value)
		o.keepAlive.Count = cmp.Or(n, defaultCount)
		return err
	},
	"tcp_user_timeout": func(o *options, value string, _ *pgx.ConnConfig) error {
		n, err := number(value)
		o.userTimeout = time.Duration(n) * time.Millisecond // 0: the system's default
		return err
	},
	"load_balance_hosts": func(o *options, value string, cfg *pgx.ConnConfig) error {
		o.shuffle = value == "random"
		return oneOf("disable", "random")(o, value, cfg)
	},
	"hostaddr": func(o *options, value string, cfg *pgx.ConnConfig) error {
		return o.setAddresses(strings.Split(value, ","), cfg)
	},
	"ssl_min_protocol_version": version(func(o *options) *uint16 { return &o.minTLS }),
	"ssl_max_protocol_version": version(func(o *options) *uint16 { return &o.maxTLS }),
	"pgbouncer": func(o *options, value string, cfg *pgx.ConnConfig) error {
		o.execMode = value == "true"
		return oneOf("true", "false")(o, value, cfg)
	},
	"password_file": func(o *options, value string, cfg *pgx.ConnConfig) error {
		o.passwordFile = value
		return o.readPassword(cfg)
	},
}

// oneOf accepts some values, which have no effect.
func oneOf(values ...string) func(*options, string, *pgx.ConnConfig) error {
	return func(_ *options, value string, _ *pgx.ConnConfig) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("%q is not supported: want %s", value, strings.Join(values, " or "))
		}
		return nil
	}
}

func number(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q: want a whole number, 0 or more", value)
	}
	return n, nil
}

// seconds parses a number of seconds; 0 is the default.
func seconds(field func(*options) *time.Duration, otherwise time.Duration) func(*options, string, *pgx.ConnConfig) error {
	return func(o *options, value string, _ *pgx.ConnConfig) error {
		n, err := number(value)
		*field(o) = cmp.Or(time.Duration(n)*time.Second, otherwise)
		return err
	}
}

// version parses a version of TLS.
func version(field func(*options) *uint16) func(*options, string, *pgx.ConnConfig) error {
	return func(o *options, value string, _ *pgx.ConnConfig) error {
		versions := map[string]uint16{"": 0, "TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}
		v, ok := versions[value]
		if !ok {
			return fmt.Errorf("%q: want TLSv1.2 or TLSv1.3", value)
		}
		*field(o) = v
		return nil
	}
}

// setAddresses sets the addresses of hosts, so that they need no lookup.
func (o *options) setAddresses(addresses []string, cfg *pgx.ConnConfig) error {
	hosts := []string{cfg.Host}
	for _, f := range cfg.Fallbacks {
		if f.Host != hosts[len(hosts)-1] {
			hosts = append(hosts, f.Host)
		}
	}
	if len(hosts) != len(addresses) {
		return fmt.Errorf("%d addresses for %d different hosts: set host too, with one for each address", len(addresses), len(hosts))
	}
	o.addresses = map[string]string{}
	for i, address := range addresses {
		if net.ParseIP(address) == nil {
			return fmt.Errorf("%q is not an IP address", address)
		}
		o.addresses[hosts[i]] = address
	}
	return nil
}

// readPassword sets the password from the password file, if there is one.
func (o *options) readPassword(cfg *pgx.ConnConfig) error {
	if o.passwordFile == "" {
		return nil
	}
	password, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return fmt.Errorf("read the password: %w", err)
	}
	cfg.Password = strings.TrimRight(string(password), "\r\n")
	return nil
}

// limitTLS limits the versions of TLS.
func (o *options) limitTLS(cfg *pgx.ConnConfig) {
	configs := []*tls.Config{cfg.TLSConfig}
	for _, f := range cfg.Fallbacks {
		configs = append(configs, f.TLSConfig)
	}
	for _, c := range configs {
		if c != nil {
			c.MinVersion, c.MaxVersion = o.minTLS, o.maxTLS
		}
	}
}
