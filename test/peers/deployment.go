package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/test/bench/harness"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// settings are the differences from PostgreSQL's defaults: those of test/bench, and
// the time of each commit, by which latency is measured.
var settings = map[string]string{
	"shared_buffers":         "256MB",
	"max_wal_size":           "4GB",
	"max_connections":        "300",
	"track_commit_timestamp": "on",
}

// The streams, as Tandem creates them.
var (
	inputs  = jetstream.StreamConfig{Name: consume.InputStream}
	outputs = jetstream.StreamConfig{Name: consume.OutputStream}
)

const (
	trialDatabase = "peers_trial"

	// publishAhead is how many messages are sent before the stream has answered.
	publishAhead = 2048
)

// deployment holds the servers, and the programs and data of all trials.
type deployment struct {
	*harness.Servers

	programs devcluster.Programs
	dir      string
	self     string // this program
	made     map[string]bool
	died     chan supervisor.Exit
	keep     bool
}

// deploy builds Tandem and starts the servers, in a folder in dir.
func deploy(ctx context.Context, dir string, keep bool, log io.Writer) (*deployment, error) {
	d := &deployment{keep: keep, made: map[string]bool{}, died: make(chan supervisor.Exit, 16)}
	if err := d.start(ctx, dir, log); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *deployment) start(ctx context.Context, dir string, log io.Writer) (err error) {
	if d.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if d.dir, err = devcluster.TempDir(dir, "tandem-peers-"); err != nil {
		return err
	}
	if d.programs, err = devcluster.Build(ctx, filepath.Join(d.dir, "bin"), log); err != nil {
		return err
	}
	d.Servers, err = harness.Start(ctx, devcluster.Config{
		Dir: d.dir, Programs: d.programs,
		Postgres: &devcluster.PostgresConfig{Settings: settings}, NATS: &devcluster.NATSConfig{},
		OnExit: func(e supervisor.Exit) {
			select {
			case d.died <- e:
			default:
			}
		},
	}, publishAhead)
	return err
}

func (d *deployment) close() {
	if d.Servers != nil {
		d.Stop(context.Background())
	}
	if !d.keep && d.dir != "" {
		_ = devcluster.RemoveDir(d.dir) // temporary: an error changes no result
	}
}

// fresh recreates the trial's database and streams, as the peer needs them.
func (d *deployment) fresh(ctx context.Context, p peer) error {
	template := "peers_" + strings.ReplaceAll(p.prepared(), "-", "_")
	if !d.made[template] {
		if err := d.CopyDatabase(ctx, "template0", template); err != nil {
			return err
		}
		databaseURL, err := d.URL(template)
		if err != nil {
			return err
		}
		if err := p.prepare(ctx, databaseURL); err != nil {
			return fmt.Errorf("prepare the database for %s: %w", p.name, err)
		}
		d.made[template] = true
	}
	if err := d.CopyDatabase(ctx, template, trialDatabase); err != nil {
		return err
	}
	for _, stream := range []jetstream.StreamConfig{inputs, outputs} {
		if err := d.JS.DeleteStream(ctx, stream.Name); err != nil && !errors.Is(err, natsjs.ErrStreamNotFound) {
			return fmt.Errorf("delete stream %s: %w", stream.Name, err)
		}
		if err := d.Conn.EnsureStream(ctx, stream); err != nil {
			return err
		}
	}
	return nil
}
