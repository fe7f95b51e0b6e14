package devcluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// ClusterPorts goes with its last caller, as does everything in this file.
const ClusterPorts = clusterPorts

// Lock is for callers of AcquireLock.
type Lock struct{ *lock }

// Release is lock.release.
func (l *Lock) Release() { l.release() }

// AcquireLock is acquireLock.
func AcquireLock(dir string) (*Lock, error) {
	l, err := acquireLock(dir)
	return &Lock{l}, err
}

// StartNATSCluster is startNATSCluster.
func StartNATSCluster(ctx context.Context, sup *supervisor.Supervisor, size int, cfg NATSConfig) ([]*NATS, error) {
	cfg.Servers = size
	return startNATSCluster(ctx, sup, cfg, cfg.Route)
}

// StartCluster starts a cluster on FirstPort.
func StartCluster(sup *supervisor.Supervisor, cfg ClusterConfig) (*Cluster, error) {
	c, err := newCluster(cfg)
	if err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	for i := range c.ports {
		if c.ports[i] = cfg.FirstPort + i; cfg.FirstPort == 0 {
			c.ports[i], err = FreePort()
		}
	}
	if c.sink = c.FunctionURL(); cfg.Through != nil {
		c.sink = cfg.Through(c.sink)
	}
	return c, errors.Join(err, c.start(sup))
}
