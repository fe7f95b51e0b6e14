package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// startNATSCluster starts cfg.Servers servers that share one JetStream, with their streams
// in folders of their own in cfg.Dir, and returns when a stream can be stored on all of
// them. Route, if not nil, returns the URL by which one server reaches another at url.
func startNATSCluster(ctx context.Context, sup *supervisor.Supervisor, cfg NATSConfig, route func(from, to, url string) (string, error)) ([]*NATS, error) {
	if cfg.Program == "" || cfg.Dir == "" || cfg.Port != 0 {
		return nil, errors.New("start NATS: Program or Dir is missing, or Port is set")
	}
	cfg = cfg.withDefaults()
	size := cfg.Servers
	var routes []string
	var routePorts []int
	for range size {
		port, err := FreePort()
		if err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		routePorts = append(routePorts, port)
		routes = append(routes, "nats://127.0.0.1:"+strconv.Itoa(port))
	}
	var servers []*NATS
	for i := range size {
		routes, more, err := routesOf(i, routes, route)
		if err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		n := &NATS{cfg: cfg}
		if n.cfg.Port, err = FreePort(); err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		name := natsName(i)
		dir, err := filepath.Abs(filepath.Join(cfg.Dir, name))
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		if n.process, err = sup.Start(supervisor.ProcessConfig{
			Name: name,
			Path: cfg.Program,
			Args: append([]string{
				"-port", strconv.Itoa(n.cfg.Port), "-dir", dir, "-sync-interval", cfg.SyncInterval,
				"-name", name, "-cluster", "tandem", "-cluster-port", strconv.Itoa(routePorts[i]), "-routes", strings.Join(routes, ","),
			}, more...),
			Stage: supervisor.StageServers,
			Grace: cfg.Grace,
		}); err != nil {
			return nil, err
		}
		servers = append(servers, n)
	}
	for _, n := range servers {
		if err := n.WaitUntilReady(ctx); err != nil {
			return nil, err
		}
	}
	if err := awaitPeers(ctx, servers); err != nil {
		return nil, err
	}
	return servers, nil
}

// awaitPeers returns when a stream can be stored on all servers. The leader of JetStream
// learns of the others some time after each of them answers.
func awaitPeers(ctx context.Context, servers []*NATS) error {
	ctx, cancel := context.WithTimeout(ctx, servers[0].cfg.StartTimeout)
	defer cancel()
	conn, err := nats.Connect(servers[0].URL(), nats.Timeout(2*time.Second))
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer conn.Close()
	js, err := natsjs.New(conn)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	probe := natsjs.StreamConfig{Name: "tandem-probe", Subjects: []string{"tandem-probe"}, Storage: natsjs.MemoryStorage, Replicas: len(servers)}
	for {
		err := jetstream.Do(ctx, func(ctx context.Context) error {
			_, err := js.CreateOrUpdateStream(ctx, probe)
			return err
		})
		if err == nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("no stream can be stored on %d NATS servers: %w", len(servers), err)
		}
	}
	err = jetstream.Do(ctx, func(ctx context.Context) error {
		if err := js.DeleteStream(ctx, probe.Name); !errors.Is(err, natsjs.ErrStreamNotFound) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete stream %s: %w", probe.Name, err)
	}
	return nil
}

func natsName(i int) string { return "nats-" + strconv.Itoa(i+1) }

// routesOf returns the routes of a server, given the addresses of all, and further
// arguments.
func routesOf(server int, addresses []string, route func(from, to, url string) (string, error)) (routes, more []string, err error) {
	if route == nil {
		return addresses, nil, nil
	}
	for i, address := range addresses {
		if i == server {
			continue
		}
		through, err := route(natsName(server), natsName(i), address)
		if err != nil {
			return nil, nil, err
		}
		routes = append(routes, through)
	}
	// Servers advertise others to each other: none may find a way around.
	return routes, []string{"-cluster-advertise", nowhere}, nil
}

// nowhere is an address on which no process listens.
const nowhere = "127.0.0.1:1"
