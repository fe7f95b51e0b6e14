package clusters_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/link"
)

// slowInstance is the latency of requests to a slow instance, in each direction.
const slowInstance = 150 * time.Millisecond

func TestOfThreeInstancesOneHangsOneIsKilledAndOneIsSlow(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		clusters []string
		service  bool // a connection balancer is in front of the instances
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
			w.more(t, 2000)
			for range 3 {
				all(func(c *devcluster.Cluster) { w.kill(t, c.Functions[1], 1) })
			}
			w.more(t, 2000)
			all(func(c *devcluster.Cluster) {
				w.Link(c.Name() + "-function-3").Set(link.Condition{Delay: slowInstance})
			})
			w.finish(t, w.Clusters()...) // one of the three instances of each cluster still hangs
			all(func(c *devcluster.Cluster) { send(t, c, 0, syscall.SIGCONT) })
			w.compare(t) // the work of the stopped instance has no effect
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

// newService returns the URL of a connection balancer, like a Kubernetes Service.
func newService(t *testing.T, urls []string) (string, error) {
	t.Helper()
	l := link.New()
	t.Cleanup(l.Close)
	targets := make([]string, len(urls))
	for i, u := range urls {
		targets[i] = strings.TrimPrefix(u, "http://")
	}
	address, err := l.ListenAny(targets...)
	return "http://" + address, err
}
