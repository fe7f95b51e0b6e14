package devcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// DefaultSyncInterval is the interval at which NATS syncs stored messages to the disk by
// default.
const DefaultSyncInterval = "2m"

// NATSConfig is the configuration of a [NATS].
type NATSConfig struct {
	// Program is the binary of hack/nats. Required; a [Deployment] sets it.
	Program string

	// Dir holds the streams, in Dir/nats, or Dir/nats-1 and so on for several servers.
	// Required; a [Deployment] sets it; created if missing.
	Dir string

	// Host is the address that the server listens on. Defaults to 127.0.0.1.
	Host string

	// Port is the port of Host. Defaults to a free one on 127.0.0.1, chosen once.
	Port int

	// Servers is the number of servers that share one JetStream. Several servers use free
	// ports. Defaults to 1.
	Servers int

	// SyncInterval is the interval at which stored messages are synced to the disk: a
	// duration, or "always" to sync before each acknowledgement. A killed process loses
	// no message in either case; a machine that loses power does. Defaults to the
	// server's default, 2m.
	SyncInterval string

	// Grace bounds the shutdown of the server. Defaults to 1 s.
	Grace time.Duration

	// StartTimeout bounds a start, including the recovery of the streams. Defaults to
	// 30 s.
	StartTimeout time.Duration
}

func (c NATSConfig) withDefaults() NATSConfig {
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	c.SyncInterval = cmp.Or(c.SyncInterval, DefaultSyncInterval)
	c.StartTimeout = cmp.Or(c.StartTimeout, 30*time.Second)
	return c
}

// NATS is a running NATS server with JetStream that is restarted when it ends. It is safe for
// concurrent use.
type NATS struct {
	cfg     NATSConfig
	process *supervisor.Process
}

// StartNATS starts a server on the streams in cfg.Dir and waits until it answers.
func StartNATS(ctx context.Context, sup *supervisor.Supervisor, cfg NATSConfig) (*NATS, error) {
	n, err := startNATS(sup, "nats", cfg)
	if err != nil {
		return nil, err
	}
	if err := n.WaitUntilReady(ctx); err != nil {
		n.process.Stop(ctx)
		return nil, err
	}
	return n, nil
}

// startNATS starts a process with its streams in a folder of its name, and further
// arguments. It does not wait for the server.
func startNATS(sup *supervisor.Supervisor, name string, cfg NATSConfig, more ...string) (*NATS, error) {
	if cfg.Program == "" || cfg.Dir == "" {
		return nil, errors.New("start NATS: Program or Dir is missing")
	}
	n := &NATS{cfg: cfg.withDefaults()}
	dir, err := filepath.Abs(filepath.Join(cfg.Dir, name))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil && cfg.Port == 0 {
		n.cfg.Port, err = FreePort()
	}
	if err == nil {
		err = CheckPort(n.cfg.Port)
	}
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	n.process, err = sup.Start(supervisor.ProcessConfig{
		Name: name,
		Path: cfg.Program,
		Args: append([]string{
			"-host", n.cfg.Host, "-port", strconv.Itoa(n.cfg.Port), "-dir", dir, "-sync-interval", n.cfg.SyncInterval,
		}, more...),
		Stage: supervisor.StageServers,
		Grace: cfg.Grace,
	})
	return n, err
}

// Process returns the server's process.
func (n *NATS) Process() *supervisor.Process { return n.process }

// Port returns the port that the server listens on.
func (n *NATS) Port() int { return n.cfg.Port }

// SyncInterval returns the interval at which the server syncs stored messages to the disk.
func (n *NATS) SyncInterval() string { return n.cfg.SyncInterval }

// URL returns the URL for clients.
func (n *NATS) URL() string {
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(n.cfg.Port))
}

// WaitUntilReady waits until JetStream answers. If the server cannot start, the error has
// the cause.
func (n *NATS) WaitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.StartTimeout)
	defer cancel()
	for {
		err := n.ping(ctx)
		if err == nil {
			return nil
		}
		if n.process.Pid() == 0 && n.process.Failed() {
			return fmt.Errorf("NATS cannot start: %s; its log is %s", n.whyDead(), n.process.LogFile())
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("NATS does not answer on port %d: %w; its log is %s", n.cfg.Port, err, n.process.LogFile())
		}
	}
}

func (n *NATS) ping(ctx context.Context) error {
	conn, err := nats.Connect(n.URL(), nats.Timeout(2*time.Second))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = js.AccountInfo(ctx)
	return err
}

func (n *NATS) whyDead() string {
	for _, line := range n.process.LogTail() {
		switch {
		case strings.Contains(line, "address already in use"):
			return fmt.Sprintf("port %d on 127.0.0.1 is in use: stop the process that listens on it, or choose another port", n.cfg.Port)
		case strings.Contains(line, "no space left on device"), strings.Contains(line, "insufficient storage"):
			return fmt.Sprintf("no space left on the disk of %s: make room, then start again", n.cfg.Dir)
		}
		if _, text, ok := strings.Cut(line, "[FTL] "); ok {
			return supervisor.Shorten(text)
		}
	}
	if line := n.process.LastLine(); line != "" {
		return line
	}
	return "it ended without a log message"
}
