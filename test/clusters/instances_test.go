package clusters_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/link"
)

// slowInstance is how long requests to a slow instance take each way.
const slowInstance = 150 * time.Millisecond

func TestOfThreeInstancesOneHangsOneIsKilledAndOneIsSlow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		clusters []string
		service  bool // a balancer of connections is in front of the instances
		long     bool
	}{
		"two clusters":                {clusters: []string{"east", "west"}},
		"one cluster alone":           {clusters: []string{"east"}},
		"two clusters with a Service": {clusters: []string{"east", "west"}, service: true, long: true},
		"one cluster with a Service":  {clusters: []string{"east"}, service: true, long: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.long {
				long(t)
			}
			cfg := devcluster.Config{Linked: true}
			for _, name := range tt.clusters {
				c := devcluster.ClusterConfig{Name: name, Instances: 3}
				if tt.service {
					c.Sink = func(urls []string) (string, error) { return newService(t, urls) }
				}
				cfg.Clusters = append(cfg.Clusters, c)
			}
			w := newWorldOf(t, 1500, cfg)
			w.waitFor(t, 1000)
			w.hasWon(t, w.Clusters()...)
			all := func(do func(c *devcluster.Cluster)) {
				for _, c := range w.Clusters() {
					do(c)
				}
			}
			all(func(c *devcluster.Cluster) { send(t, c, 0, syscall.SIGSTOP) })
			w.waitFor(t, 5000)
			for range 3 {
				all(func(c *devcluster.Cluster) { w.kill(t, c.Functions[1], 1) })
			}
			w.waitFor(t, 10_000)
			all(func(c *devcluster.Cluster) {
				w.Link(c.Name() + "-function-3").Set(link.Condition{Delay: slowInstance})
			})
			w.finish(t, w.Clusters()...) // one of each three still hangs
			all(func(c *devcluster.Cluster) { send(t, c, 0, syscall.SIGCONT) })
			w.compare(t) // what it was at when it was stopped has no effect
		})
	}
}

// send sends a signal to an instance of a cluster's function.
func send(t *testing.T, c *devcluster.Cluster, instance int, signal syscall.Signal) {
	t.Helper()
	if err := c.Functions[instance].Kill(signal); err != nil {
		t.Fatal(err)
	}
}

// newService starts a balancer of connections, as a Service of Kubernetes is: each goes to the
// next instance that accepts it, and stays there. It returns its URL.
func newService(t *testing.T, urls []string) (string, error) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = listener.Close() })
	var turn atomic.Int64
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close() //nolint:errcheck // it may be broken
				far, err := dialNext(t.Context(), urls, int(turn.Add(1)))
				if err != nil {
					return
				}
				carry(near, far)
			}()
		}
	}()
	return "http://" + listener.Addr().String(), nil
}

// dialNext connects to the first of the instances that accepts, from one on.
func dialNext(ctx context.Context, urls []string, from int) (conn net.Conn, err error) {
	err = errors.New("there is no instance")
	for i := range urls {
		address := strings.TrimPrefix(urls[(from+i)%len(urls)], "http://")
		if conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// carry connects two connections until one of them ends.
func carry(near, far net.Conn) {
	var directions sync.WaitGroup
	for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
		directions.Go(func() {
			_, _ = io.Copy(ends[0], ends[1])
			_ = near.Close()
			_ = far.Close()
		})
	}
	directions.Wait()
}
