package devcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgbin"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// Replicated is a primary PostgreSQL server and a standby that follows it asynchronously, so
// that the last commits can be lost with the primary. It is safe for concurrent use, except
// for Promote, FailBack and Rejoin.
type Replicated struct {
	sup *supervisor.Supervisor

	mu               sync.Mutex
	primary, standby *Postgres // standby is nil after a failover
	lost             *Postgres // the former primary
}

// startReplicated starts both servers and waits until the standby follows. Each needs a
// folder; their names default to postgres and standby.
func startReplicated(ctx context.Context, sup *supervisor.Supervisor, primary, standby PostgresConfig) (*Replicated, error) {
	p, err := StartPostgres(ctx, sup, primary)
	if err != nil {
		return nil, err
	}
	if standby.Name == "" {
		standby.Name = "standby"
	}
	s, err := startStandby(ctx, sup, p, standby)
	if err != nil {
		p.Stop(ctx)
		return nil, err
	}
	return &Replicated{sup: sup, primary: p, standby: s}, nil
}

// Primary returns the server that accepts writes, or did until it was lost.
func (r *Replicated) Primary() *Postgres {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.primary
}

// Standby returns the server that follows; nil after a failover.
func (r *Replicated) Standby() *Postgres {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standby
}

// URL returns the URL of the server that accepts writes, as the role that owns the database.
// It does not change in failovers, and has no password.
func (r *Replicated) URL() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	other := r.standby
	if other == nil {
		other = r.lost
	}
	// The order does not depend on which server is the primary.
	ports := []int{r.primary.Port(), other.Port()}
	if ports[0] > ports[1] {
		ports[0], ports[1] = ports[1], ports[0]
	}
	host := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	one := r.primary.URL()
	return strings.Replace(one, host(r.primary.Port()), host(ports[0])+","+host(ports[1]), 1) + "&target_session_attrs=read-write"
}

// StopReplication stops the standby from receiving: later commits are lost with the primary.
func (r *Replicated) StopReplication(ctx context.Context) error {
	return r.follow(ctx, "", "select not exists (select from pg_catalog.pg_stat_wal_receiver)")
}

// ResumeReplication undoes [Replicated.StopReplication].
func (r *Replicated) ResumeReplication(ctx context.Context) error {
	s, p := r.Standby(), r.Primary()
	if s == nil {
		return errNoStandby
	}
	return r.follow(ctx, p.conninfo(s.cfg.Name), "select exists (select from pg_catalog.pg_stat_wal_receiver where status = 'streaming')")
}

var errNoStandby = errors.New("no standby: it was promoted")

func (r *Replicated) follow(ctx context.Context, conninfo, done string) error {
	s := r.Standby()
	if s == nil {
		return errNoStandby
	}
	// The password in it consists of letters and digits.
	err := s.admin(ctx, "alter system set primary_conninfo = '"+strings.ReplaceAll(conninfo, "'", "''")+"'", "select pg_catalog.pg_reload_conf()")
	if err == nil {
		err = s.until(ctx, done)
	}
	if err != nil {
		return fmt.Errorf("change the primary of PostgreSQL %s: %w", s.cfg.Name, err)
	}
	return nil
}

// CatchUp waits until the standby has applied all current commits.
func (r *Replicated) CatchUp(ctx context.Context) error {
	p, s := r.Primary(), r.Standby()
	if s == nil {
		return errNoStandby
	}
	var at string
	if err := p.asSuperuser(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "select pg_catalog.pg_current_wal_lsn()::text").Scan(&at)
	}); err != nil {
		return err
	}
	return s.until(ctx, "select pg_catalog.pg_last_wal_replay_lsn() >= '"+at+"'::pg_lsn")
}

// LosePrimary kills the primary with SIGKILL, permanently. Commits are lost when the standby
// is promoted without them.
func (r *Replicated) LosePrimary() { r.Primary().process.Destroy() }

// Promote promotes the standby to primary and waits until it accepts writes.
func (r *Replicated) Promote(ctx context.Context) error {
	s := r.Standby()
	if s == nil {
		return errNoStandby
	}
	if err := s.admin(ctx, "select pg_catalog.pg_promote()"); err != nil {
		return fmt.Errorf("promote PostgreSQL %s: %w", s.cfg.Name, err)
	}
	if err := s.until(ctx, "select not pg_catalog.pg_is_in_recovery()"); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost, r.primary, r.standby = r.primary, s, nil
	return nil
}

// FailBack loses the current primary and starts the one that was lost before it again, with
// the data that it had then: it is the primary again, on its own timeline, and no server has
// the commits made in between.
func (r *Replicated) FailBack(ctx context.Context) error {
	r.mu.Lock()
	p, former := r.primary, r.lost
	r.mu.Unlock()
	if former == nil {
		return errors.New("fail back PostgreSQL: no server was lost")
	}
	p.process.Destroy()
	cfg := former.cfg
	cfg.BinDir = former.bin.Dir
	s, err := startPostgres(ctx, r.sup, cfg, (*pgData).init)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.primary, r.lost = s, p
	return nil
}

// Rejoin starts the lost server as the standby of the current primary, at its old address,
// with a copy of the data.
func (r *Replicated) Rejoin(ctx context.Context) error {
	r.mu.Lock()
	p, lost := r.primary, r.lost
	r.mu.Unlock()
	if lost == nil {
		return errors.New("rejoin PostgreSQL: no server was lost")
	}
	s, err := startStandby(ctx, r.sup, p, lost.cfg)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standby, r.lost = s, nil
	return nil
}

// startStandby starts a server on a new copy of the primary's data and waits until it
// follows.
func startStandby(ctx context.Context, sup *supervisor.Supervisor, primary *Postgres, cfg PostgresConfig) (*Postgres, error) {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	cfg.BinDir = primary.bin.Dir
	s, err := startPostgres(ctx, sup, cfg, func(d *pgData, ctx context.Context, _ pgbin.Install) error {
		return d.copyOf(ctx, primary, cfg.Name)
	})
	if err != nil {
		return nil, err
	}
	if err := s.until(ctx, "select exists (select from pg_catalog.pg_stat_wal_receiver where status = 'streaming')"); err != nil {
		s.Stop(ctx)
		return nil, fmt.Errorf("PostgreSQL %s does not follow: %w; its log is %s", cfg.Name, err, s.process.LogFile())
	}
	return s, nil
}

// slot returns the name of the replication slot of a standby.
func slot(name string) string { return "tandem_" + strings.ReplaceAll(name, "-", "_") }

// conninfo returns the connection string with which a standby connects to p.
func (p *Postgres) conninfo(name string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s sslmode=disable application_name=%s",
		p.cfg.Port, pgSuperuser, p.data.password, name)
}

// copyOf creates the data folder as a copy of a running server's, for a standby of a name.
func (d *pgData) copyOf(ctx context.Context, primary *Postgres, name string) error {
	if err := primary.admin(ctx, "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots where slot_name = '"+slot(name)+"'"); err != nil {
		return err
	}
	d.password, d.major = primary.data.password, primary.bin.Major
	fresh, err := d.makeFresh()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, primary.bin.Program("pg_basebackup"), "-D", fresh, "--checkpoint=fast", "--wal-method=stream", "--no-sync",
		"--create-slot", "--slot="+slot(name), "--dbname="+primary.conninfo(name))
	cmd.Dir = fresh
	cmd.Env = d.env()
	cmd.SysProcAttr = supervisor.Attributes(0, d.account) // no death signal, because this thread may end first
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w: %s", err, initdbReason(string(out)))
	}
	follow := fmt.Sprintf("primary_conninfo = '%s'\nprimary_slot_name = '%s'\n", primary.conninfo(name), slot(name))
	for file, content := range map[string]string{"postgresql.auto.conf": follow, "standby.signal": ""} {
		file = filepath.Join(fresh, file)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return err
		}
		if err := chown(file, d.account); err != nil {
			return err
		}
	}
	return d.moveHere(fresh)
}

// admin runs statements as the superuser.
func (p *Postgres) admin(ctx context.Context, statements ...string) error {
	return p.asSuperuser(ctx, func(conn *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// until waits until the query returns true.
func (p *Postgres) until(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StartTimeout)
	defer cancel()
	return p.asSuperuser(ctx, func(conn *pgx.Conn) error {
		for {
			var yes bool
			if err := conn.QueryRow(ctx, query).Scan(&yes); yes || err != nil {
				return err
			}
			select {
			case <-time.After(pgReadyPoll):
			case <-ctx.Done():
				return fmt.Errorf("wait for %q: %w", query, context.Cause(ctx))
			}
		}
	})
}
