package devcluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// startNATSCluster starts cfg.Servers servers that share one JetStream, with their streams
// in separate folders in cfg.Dir, and waits until each of them answers. The leader of
// JetStream discovers the others some time later: until then it cannot store a stream on all
// of them. Route, if not nil, returns the URL through which one server reaches another at
// url.
func startNATSCluster(ctx context.Context, sup *supervisor.Supervisor, cfg NATSConfig, route func(from, to, url string) (string, error)) ([]*NATS, error) {
	first, err := FreePorts(cfg.Servers)
	if err != nil {
		return nil, fmt.Errorf("start NATS: %w", err)
	}
	var addresses []string
	for i := range cfg.Servers {
		addresses = append(addresses, "nats://127.0.0.1:"+strconv.Itoa(first+i))
	}
	var servers []*NATS
	for i := range cfg.Servers {
		routes, more, err := routesOf(i, addresses, route)
		if err != nil {
			return nil, fmt.Errorf("start NATS: %w", err)
		}
		n, err := startNATS(sup, natsName(i), cfg, append(more, "-name", natsName(i), "-cluster", "tandem",
			"-cluster-port", strconv.Itoa(first+i), "-routes", strings.Join(routes, ","))...)
		if err != nil {
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
	// Servers advertise others to each other: none must find a way around the links.
	return routes, []string{"-cluster-advertise", nowhere}, nil
}

// nowhere is an address without a listener.
const nowhere = "127.0.0.1:1"
