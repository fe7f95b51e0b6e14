package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// StartNATSCluster starts servers that share one JetStream, with their streams in
// folders of their own in cfg.Dir, and waits until all of them answer. The ports are
// free ones; cfg.Port must be zero.
func StartNATSCluster(ctx context.Context, sup *Supervisor, size int, cfg NATSConfig) ([]*NATS, error) {
	if cfg.Program == "" || cfg.Dir == "" || cfg.Port != 0 {
		return nil, errors.New("start NATS: Program or Dir is missing, or Port is set")
	}
	cfg = cfg.withDefaults()
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
		n := &NATS{cfg: cfg}
		var err error
		if n.cfg.Port, err = FreePort(); err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		name := "nats-" + strconv.Itoa(i+1)
		dir, err := filepath.Abs(filepath.Join(cfg.Dir, name))
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return nil, fmt.Errorf("prepare NATS: %w", err)
		}
		if n.part, err = sup.Start(PartConfig{
			Name: name,
			Path: cfg.Program,
			Args: []string{
				"-port", strconv.Itoa(n.cfg.Port), "-dir", dir, "-sync-interval", cfg.SyncInterval,
				"-name", name, "-cluster", "tandem", "-cluster-port", strconv.Itoa(routePorts[i]), "-routes", strings.Join(routes, ","),
			},
			Stage: StageServers,
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
	return servers, nil
}
