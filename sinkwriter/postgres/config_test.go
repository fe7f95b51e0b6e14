package postgres_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

func parse(t *testing.T, connString string) *pgxpool.Config {
	t.Helper()
	cfg, err := postgres.ParseConfig(connString, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Every option of libpq, as in the table of its manual for PostgreSQL 18, and of the driver.
func TestOptionsOfLibpqWorkOrAreRefusedByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	services := filepath.Join(dir, "services")
	if err := os.WriteFile(services, []byte("[mine]\nhost=h\ngssencmode=disable\nuser=u\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const refused = "refused"
	for option, want := range map[string]string{
		"application_name=x": "", "channel_binding=disable": "", "client_encoding=UTF8": "", "client_encoding=auto": "", "connect_timeout=3": "",
		"fallback_application_name=x": "", "gssdelegation=0": "", "gssencmode=disable": "", "gssencmode=prefer": "", "hostaddr=127.0.0.1": "",
		"keepalives=1": "", "keepalives_idle=5": "", "keepalives_interval=5": "", "keepalives_count=5": "", "krbsrvname=x": "",
		"load_balance_hosts=disable": "", "load_balance_hosts=random": "", "max_protocol_version=3.2": "", "min_protocol_version=3.0": "",
		"options=-c%20search_path%3Dx": "", "passfile=/nowhere": "", "require_auth=scram-sha-256": "", "service=mine&servicefile=" + services: "",
		"sslcertmode=allow": "", "sslcompression=0": "", "sslmode=require": "", "sslnegotiation=postgres": "", "sslsni=1": "",
		"ssl_min_protocol_version=TLSv1.3": "", "ssl_max_protocol_version=TLSv1.3": "", "target_session_attrs=read-write": "", "tcp_user_timeout=5000": "",
		"pgbouncer=true": "", "pgbouncer=false": "", "default_query_exec_mode=exec": "", "pool_max_conns=3": "", "search_path=x": "",
		"password_file=" + password: "",

		"client_encoding=latin1": refused, "gssencmode=require": refused, "gssdelegation=1": refused, "gsslib=gssapi": refused, "replication=true": refused,
		"requirepeer=x": refused, "scram_client_key=x": refused, "scram_server_key=x": refused, "sslcrl=x": refused, "sslcrldir=x": refused,
		"sslkeylogfile=x": refused, "oauth_issuer=x": refused, "oauth_client_id=x": refused, "oauth_client_secret=x": refused, "oauth_scope=x": refused,
		"keepalives=x": refused, "keepalives_idle=x": refused, "keepalives_count=x": refused, "keepalives_interval=-1": refused, "tcp_user_timeout=x": refused,
		"load_balance_hosts=x": refused, "ssl_min_protocol_version=x": refused, "ssl_max_protocol_version=SSLv3": refused, "pgbouncer=x": refused,
		"hostaddr=x": refused, "hostaddr=127.0.0.1,127.0.0.2": refused, "password_file=/nowhere": refused, "sslcompression=x": refused,
	} {
		name, _, _ := strings.Cut(option, "=")
		for form, connString := range map[string]string{
			"URL":      "postgres://u:secret@h:5432/d?" + option,
			"keywords": "host=h user=u password=secret dbname=d " + strings.NewReplacer("&", " ", "-c%20search_path%3Dx", "'-c search_path=x'").Replace(option),
		} {
			cfg, err := postgres.ParseConfig(connString, time.Second)
			switch {
			case want == "" && err != nil:
				t.Errorf("%s as %s: %v", option, form, err)
			case want == "" && name != "search_path" && name != "options" && name != "application_name" && name != "fallback_application_name" && len(cfg.ConnConfig.RuntimeParams) > 0:
				t.Errorf("%s as %s: the server is sent %v", option, form, cfg.ConnConfig.RuntimeParams)
			case want == refused && err == nil:
				t.Errorf("%s as %s is accepted", option, form)
			case want == refused && (!strings.Contains(err.Error(), "option "+name) || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "=secret")):
				t.Errorf("%s as %s: the error is %q", option, form, err)
			}
		}
	}
}

func TestErrorsOfAConnectionStringHaveNoPassword(t *testing.T) {
	t.Parallel()
	for _, connString := range []string{
		"postgres://u:hush@x:port/d", "postgres://u:hu%zzhush@x/d", "postgres://u:hush@[::1/d", "postgres://u:hush@x:1,y:2,z/d?port=hush",
		"user=u password=hush hush host=x", "user=u password='hush host=x", "password=hush=hush user", "user=u password=hush port=hush",
		"postgres://u:hush@x/d?sslmode=require&sslcert=/nowhere&sslkey=/nowhere", "postgres://u:hush@x/d?connect_timeout=x", "postgres://u:hush@x/d?gssencmode=x",
		"postgres://u:hush@x/d?target_session_attrs=x", "postgres://u:hush@x/d?pool_max_conns=x", "postgres://u:hush@x/d?default_query_exec_mode=x",
		"postgres://u:hush@x/d?service=x&servicefile=/nowhere", "postgres://u@x/d?password=hush&sslrootcert=/nowhere", "hush",
	} {
		_, err := postgres.ParseConfig(connString, time.Second)
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error is %v", connString, err)
		}
	}
}

func TestOptionsAreApplied(t *testing.T) {
	t.Parallel()
	cfg := parse(t, "postgres://u:secret@a,b:6543/d?pgbouncer=true&fallback_application_name=mine&hostaddr=127.0.0.1,127.0.0.2&ssl_min_protocol_version=TLSv1.3&sslmode=require")
	if cfg.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeExec {
		t.Errorf("statements are sent in mode %s", cfg.ConnConfig.DefaultQueryExecMode)
	}
	if diff := cmp.Diff(map[string]string{"application_name": "mine"}, cfg.ConnConfig.RuntimeParams); diff != "" {
		t.Errorf("settings of the session (-want +got):\n%s", diff)
	}
	for host, want := range map[string]string{"a": "127.0.0.1", "b": "127.0.0.2"} {
		if got, err := cfg.ConnConfig.LookupFunc(t.Context(), host); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("host %s is %v, %v, want %s", host, got, err, want)
		}
	}
	one := cfg.ConnConfig.Copy()
	if err := cfg.BeforeConnect(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if one.TLSConfig.MinVersion != tls.VersionTLS13 || one.Fallbacks[0].TLSConfig.MinVersion != tls.VersionTLS13 {
		t.Error("the versions of TLS are not limited")
	}
	orders := map[string]bool{}
	cfg = parse(t, "postgres://u:secret@a,b,c/d?load_balance_hosts=random&sslmode=prefer")
	for range 200 {
		one := cfg.ConnConfig.Copy()
		if err := cfg.BeforeConnect(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		order := one.Host
		for _, f := range one.Fallbacks {
			order += f.Host
		}
		orders[order] = true
	}
	if len(orders) != 6 || !orders["aabbcc"] || !orders["ccbbaa"] {
		t.Errorf("hosts are tried in the orders %v", orders)
	}
}

func TestAPasswordIsReadAgainForEachConnection(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	admin, err := pgxpool.New(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	c := admin.Config().ConnConfig
	set := func(password string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), "alter role "+c.User+" password '"+password+"'"); err != nil {
			t.Fatal(err)
		}
	}
	for option, content := range map[string]string{"passfile": "*:*:*:*:%s\n", "password_file": "%s\n"} {
		file := filepath.Join(t.TempDir(), "file")
		write := func(password string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(strings.Replace(content, "%s", password, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		set("first")
		write("first")
		withoutPassword := strings.Replace(owner, ":"+c.Password+"@", "@", 1)
		pool, err := pgxpool.NewWithConfig(t.Context(), parse(t, withoutPassword+"&"+option+"="+file))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if err := pool.Ping(t.Context()); err != nil {
			t.Fatalf("%s: %v", option, err)
		}
		set("second")
		pool.Reset()
		if err := pool.Ping(t.Context()); err == nil || strings.Contains(err.Error(), "first") {
			t.Errorf("%s: the former password: %v", option, err)
		}
		write("second")
		if err := pool.Ping(t.Context()); err != nil {
			t.Errorf("%s: the new password: %v", option, err)
		}
	}
}
