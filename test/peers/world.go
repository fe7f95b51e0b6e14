package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// settings are what differs from PostgreSQL's defaults: those of test/bench, and the
// time of each commit, by which latency is measured.
var settings = map[string]string{
	"shared_buffers":         "256MB",
	"max_wal_size":           "4GB",
	"max_connections":        "300",
	"track_commit_timestamp": "on",
}

// The streams, as Tandem makes them.
var (
	inputs  = jetstream.StreamConfig{Name: consume.InputStream}
	outputs = jetstream.StreamConfig{Name: consume.OutputStream}
)

const (
	trialDatabase = "peers_trial"

	// publishAhead is how many messages are sent before the stream has answered.
	publishAhead = 2048
)

// world is the servers, and what all trials need.
type world struct {
	sup      *supervisor.Supervisor
	postgres *devcluster.Postgres
	nats     *devcluster.NATS
	programs devcluster.Programs
	admin    *pgxpool.Pool
	nc       *nats.Conn
	js       natsjs.JetStream
	conn     *jetstream.Conn
	dir      string
	self     string // this program
	made     map[string]bool
	died     chan supervisor.Exit
	keep     bool
}

// open builds Tandem and starts the servers, in a folder in dir.
func open(ctx context.Context, dir string, keep bool, log io.Writer) (*world, error) {
	w := &world{keep: keep, made: map[string]bool{}, died: make(chan supervisor.Exit, 16)}
	if err := w.start(ctx, dir, log); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) start(ctx context.Context, dir string, log io.Writer) (err error) {
	if w.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if w.dir, err = os.MkdirTemp(dir, "tandem-peers-"); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	if err = os.Chmod(w.dir, 0o755); err != nil { // whoever the server runs as must enter
		return fmt.Errorf("make a folder: %w", err)
	}
	if err = w.build(ctx, log); err != nil {
		return err
	}
	if w.sup, err = supervisor.New(supervisor.Config{
		LogDir: filepath.Join(w.dir, "log"),
		OnExit: func(e supervisor.Exit) {
			select {
			case w.died <- e:
			default:
			}
		},
	}); err != nil {
		return err
	}
	if w.postgres, err = devcluster.StartPostgres(ctx, w.sup, devcluster.PostgresConfig{Dir: w.dir, Settings: settings}); err != nil {
		return err
	}
	if w.nats, err = devcluster.StartNATS(ctx, w.sup, devcluster.NATSConfig{Program: w.programs.NATS, Dir: w.dir}); err != nil {
		return err
	}
	if w.admin, err = pgxpool.New(ctx, w.postgres.AdminURL("postgres")); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if w.nc, err = nats.Connect(w.nats.URL()); err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	if w.js, err = natsjs.New(w.nc, natsjs.WithPublishAsyncMaxPending(publishAhead)); err != nil {
		return fmt.Errorf("set up JetStream: %w", err)
	}
	w.conn, err = jetstream.Connect(ctx, w.nats.URL(), jetstream.Config{Name: "peers"})
	return err
}

// build compiles Tandem's programs in its own module, so with its own dependencies.
func (w *world) build(ctx context.Context, log io.Writer) error {
	root, err := repository(ctx)
	if err != nil {
		return err
	}
	bin := filepath.Join(w.dir, "bin")
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "./eventing/cmd/source", "./hack/serve", "./hack/nats")
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build Tandem: go build: %w", err)
	}
	w.programs = devcluster.Programs{Source: filepath.Join(bin, "source"), Function: filepath.Join(bin, "serve"), NATS: filepath.Join(bin, "nats")}
	return nil
}

// repository is the folder of Tandem's module.
func repository(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", "github.com/tandem-fn/tandem").Output()
	if err != nil {
		return "", fmt.Errorf("find Tandem's source: go list: %w; start this with make peers", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if w.conn != nil {
		_ = w.conn.Close(ctx)
	}
	if w.nc != nil {
		w.nc.Close()
	}
	if w.admin != nil {
		w.admin.Close()
	}
	if w.sup != nil {
		w.sup.Stop(ctx)
	}
	if w.keep {
		return
	}
	if w.postgres != nil {
		_ = os.RemoveAll(w.postgres.DataDir()) // elsewhere, if root's folder is closed to the server
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// url connects to a database as its owner.
func (w *world) url(database string) (string, error) {
	u, err := url.Parse(w.postgres.URL())
	if err != nil {
		return "", fmt.Errorf("the server's URL: %w", err)
	}
	u.Path = "/" + database
	return u.String(), nil
}

// fresh makes the trial's database and streams anew, as the peer needs them.
func (w *world) fresh(ctx context.Context, p peer) error {
	template := "peers_" + strings.ReplaceAll(p.prepared(), "-", "_")
	if !w.made[template] {
		if err := w.copyDatabase(ctx, "template0", template); err != nil {
			return err
		}
		databaseURL, err := w.url(template)
		if err != nil {
			return err
		}
		if err := p.prepare(ctx, databaseURL); err != nil {
			return fmt.Errorf("prepare the database for %s: %w", p.name, err)
		}
		w.made[template] = true
	}
	if err := w.copyDatabase(ctx, template, trialDatabase); err != nil {
		return err
	}
	for _, stream := range []jetstream.StreamConfig{inputs, outputs} {
		if err := w.js.DeleteStream(ctx, stream.Name); err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
			return fmt.Errorf("delete stream %s: %w", stream.Name, err)
		}
		if err := w.conn.EnsureStream(ctx, stream); err != nil {
			return err
		}
	}
	return nil
}

// copyDatabase makes a database as a copy, whose files are on the disk before the
// trial begins.
func (w *world) copyDatabase(ctx context.Context, from, to string) error {
	for _, sql := range []string{
		"drop database if exists " + to + " with (force)",
		"create database " + to + " template " + from + " owner tandem strategy file_copy",
	} {
		if _, err := w.admin.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
