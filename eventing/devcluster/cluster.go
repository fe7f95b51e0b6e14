package devcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

const (
	// clusterPorts is the number of ports of a cluster with one instance of the function, and
	// instancePorts that of each further instance.
	clusterPorts  = 5
	instancePorts = 2

	// maxInstances is the number of instances whose ports fit between those of two
	// clusters.
	maxInstances = 1 + (PortStep-clusterPorts)/instancePorts
)

// readyTimeout bounds the time until the processes of a cluster answer.
const readyTimeout = 30 * time.Second

// ClusterConfig is the configuration of a [Cluster].
type ClusterConfig struct {
	// Name is the name of the cluster, for example east. Required.
	Name string

	// Function is the function to which the source delivers. Defaults to flights.
	Function string

	// Instances is the number of processes of the function, up to 3. The source balances
	// between them. Defaults to 1.
	Instances int

	// Sources is the number of replicas of the source, of which one delivers at a time.
	// Defaults to 1.
	Sources int

	// Sink, if set, returns the URL through which the source reaches the function whose
	// instances are at these URLs, for example that of a balancer in front of them.
	Sink func(urls []string) (string, error)

	// Programs, DatabaseURL and NATSURL default to those of the [Deployment].
	Programs             Programs
	DatabaseURL, NATSURL string

	// Env are further variables for each process, for example "LOG_LEVEL=debug".
	Env []string
}

// ports returns how many ports the cluster has.
func (c ClusterConfig) ports() int {
	return clusterPorts + instancePorts*(max(c.Instances, 1)-1) + max(c.Sources, 1) - 1
}

// Cluster represents a Kubernetes cluster: a source, a function and an ingest address,
// each a process.
type Cluster struct {
	cfg ClusterConfig
	sup *supervisor.Supervisor

	// firstPort is ingest's; the next ones are the function's, and those of the metrics of
	// source, ingest and function. After them each further instance of the function has two,
	// and each further replica of the source one.
	firstPort int
	sink      string // URL through which the source reaches the function

	// Source, Function and Ingest are restarted if they are killed. Functions are all instances
	// of the function, of which Function is the first, and Sources all replicas of the source,
	// of which Source is the first.
	Source, Function, Ingest *supervisor.Process
	Functions, Sources       []*supervisor.Process
}

// newCluster returns a cluster without addresses.
func newCluster(cfg ClusterConfig) (*Cluster, error) {
	if cfg.Name == "" || cfg.DatabaseURL == "" || cfg.NATSURL == "" || cfg.Programs == (Programs{}) {
		return nil, errors.New("Name, Programs, DatabaseURL or NATSURL is missing")
	}
	cfg.Function = cmp.Or(cfg.Function, "flights")
	if cfg.Instances = cmp.Or(cfg.Instances, 1); cfg.Instances < 1 || cfg.Instances > maxInstances {
		return nil, fmt.Errorf("%d instances: want 1 to %d", cfg.Instances, maxInstances)
	}
	if cfg.Sources = cmp.Or(cfg.Sources, 1); cfg.Sources < 1 || cfg.ports() > PortStep {
		return nil, fmt.Errorf("%d replicas of the source: want at least 1, and at most %d ports of the cluster", cfg.Sources, PortStep)
	}
	return &Cluster{cfg: cfg}, nil
}

func (c *Cluster) start(sup *supervisor.Supervisor) error {
	c.sup = sup
	common := c.env()
	var err error
	for i := range c.cfg.Instances {
		function, err := sup.Start(supervisor.ProcessConfig{
			Name:  c.functionLink(i),
			Path:  c.cfg.Programs.Function,
			Env:   slices.Concat(common, []string{"LISTEN_ADDRESS=" + c.functionAddress(i), "METRICS_ADDRESS=" + c.functionMetrics(i)}),
			Stage: supervisor.StageFunctions,
		})
		if err != nil {
			return err
		}
		c.Functions = append(c.Functions, function)
	}
	c.Function = c.Functions[0]
	c.Sources = make([]*supervisor.Process, c.cfg.Sources)
	for i := range c.Sources {
		if err := c.StartSource(i); err != nil {
			return err
		}
	}
	c.Ingest, err = sup.Start(supervisor.ProcessConfig{
		Name:  c.cfg.Name + "-ingest",
		Path:  c.cfg.Programs.Ingest,
		Env:   slices.Concat(common, []string{"LISTEN_ADDRESS=" + c.address(0), "METRICS_ADDRESS=" + c.address(3)}),
		Stage: supervisor.StageSources,
	})
	return err
}

// env returns the variables of all processes of the cluster.
func (c *Cluster) env() []string {
	return slices.Concat(processEnv(os.Environ()), []string{
		"TANDEM_CLUSTER=" + c.cfg.Name,
		"DATABASE_URL=" + c.cfg.DatabaseURL,
		"NATS_URL=" + c.cfg.NATSURL,
	}, c.cfg.Env)
}

// StartSource starts a replica of the source, even one that was stopped permanently.
func (c *Cluster) StartSource(i int) error {
	source, err := c.sup.Start(supervisor.ProcessConfig{
		Name: numbered(c.cfg.Name+"-source", i),
		Path: c.cfg.Programs.Source,
		Env: slices.Concat(c.env(), []string{
			"TANDEM_FUNCTION=" + c.cfg.Function,
			"TANDEM_REPLICA=" + numbered("source", i),
			"K_SINK=" + c.sink,
			"METRICS_ADDRESS=" + c.sourceMetrics(i),
		}),
		Stage: supervisor.StageSources,
	})
	if err != nil {
		return err
	}
	if c.Sources[i] = source; i == 0 {
		c.Source = source
	}
	return nil
}

// activeTimeout bounds the request to one replica whether it is active.
const activeTimeout = 300 * time.Millisecond

// ActiveSource returns the index of the replica of the source that delivers; -1 if none
// reports that it does.
func (c *Cluster) ActiveSource(ctx context.Context) int {
	answers := make([]bool, c.cfg.Sources)
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, activeTimeout)
			defer cancel()
			status, err := read(ctx, "http://"+c.sourceMetrics(i)+"/health")
			answers[i] = err == nil && strings.HasPrefix(status, "active")
		})
	}
	asking.Wait()
	return slices.Index(answers, true)
}

// processEnv returns env without the variables that configure Tandem's processes.
func processEnv(env []string) []string {
	return slices.DeleteFunc(withoutPG(env), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		switch name {
		case "DATABASE_URL", "NATS_URL", "LISTEN_ADDRESS", "METRICS_ADDRESS", "ADDRESS", "PORT",
			"TANDEM_CLUSTER", "TANDEM_SITE", "TANDEM_REPLICA", "TANDEM_FUNCTION", "TANDEM_FUNCTIONS", "TANDEM_STREAM", "TANDEM_STREAMS",
			"TANDEM_OUTPUT_STREAM", "TANDEM_DEAD_LETTER_SINK", "TANDEM_HEDGE",
			"TANDEM_TYPES", "TANDEM_BATCH", "TANDEM_CATCH_UP_LAG", "TANDEM_ORDERING":
			return true
		default:
			return strings.HasPrefix(name, "K_")
		}
	})
}

func (c *Cluster) address(i int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.firstPort+i))
}

// functionAddress and functionMetrics return the addresses of an instance of the function.
func (c *Cluster) functionAddress(i int) string {
	if i == 0 {
		return c.address(1)
	}
	return c.address(clusterPorts + instancePorts*(i-1))
}

func (c *Cluster) functionMetrics(i int) string {
	if i == 0 {
		return c.address(4)
	}
	return c.address(clusterPorts + instancePorts*(i-1) + 1)
}

// functionLink returns the name of an instance of the function, and of the link to it.
func (c *Cluster) functionLink(i int) string { return numbered(c.cfg.Name+"-function", i) }

// numbered returns the name of the first, second and so on of several.
func numbered(name string, i int) string {
	if i == 0 {
		return name
	}
	return name + "-" + strconv.Itoa(i+1)
}

// sourceMetrics returns the address of the metrics of a replica of the source.
func (c *Cluster) sourceMetrics(i int) string {
	if i == 0 {
		return c.address(2)
	}
	return c.address(clusterPorts + instancePorts*(c.cfg.Instances-1) + i - 1)
}

// Name returns the name of the cluster.
func (c *Cluster) Name() string { return c.cfg.Name }

// FunctionName returns the name of the function to which the source delivers.
func (c *Cluster) FunctionName() string { return c.cfg.Function }

// IngestURL returns the URL that accepts CloudEvents for the stream.
func (c *Cluster) IngestURL() string { return "http://" + c.address(0) }

// FunctionURL returns the URL of the function, which commits the effects of CloudEvents. It is
// that of the first instance.
func (c *Cluster) FunctionURL() string { return c.FunctionURLs()[0] }

// FunctionURLs returns the URLs of all instances of the function.
func (c *Cluster) FunctionURLs() []string {
	urls := make([]string, c.cfg.Instances)
	for i := range urls {
		urls[i] = "http://" + c.functionAddress(i)
	}
	return urls
}

// MetricsURL returns the URL of the source's metrics in Prometheus' text format. It is that
// of the first replica.
func (c *Cluster) MetricsURL() string { return c.MetricsURLs()[0] }

// MetricsURLs returns the URLs of the metrics of all replicas of the source.
func (c *Cluster) MetricsURLs() []string {
	urls := make([]string, c.cfg.Sources)
	for i := range urls {
		urls[i] = "http://" + c.sourceMetrics(i) + "/metrics"
	}
	return urls
}

// FunctionMetricsURL returns the URL of the function's metrics.
func (c *Cluster) FunctionMetricsURL() string { return "http://" + c.address(4) + "/metrics" }

// Processes returns the cluster's processes.
func (c *Cluster) Processes() []*supervisor.Process {
	return append(slices.Concat(c.Functions, c.Sources), c.Ingest)
}

// Stop stops the whole cluster permanently: first source and ingest, then the function.
func (c *Cluster) Stop(ctx context.Context) {
	c.all(func(p *supervisor.Process) { p.Stop(ctx) }, append(slices.Clone(c.Sources), c.Ingest)...)
	c.all(func(p *supervisor.Process) { p.Stop(ctx) }, c.Functions...)
}

// Vanish kills the whole cluster permanently, like a data centre that loses power.
func (c *Cluster) Vanish() {
	c.all((*supervisor.Process).Destroy, c.Processes()...)
}

func (c *Cluster) all(do func(*supervisor.Process), parts ...*supervisor.Process) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() { do(p) })
	}
	wg.Wait()
}

// WaitUntilReady waits until all processes of the cluster answer. The error has the cause
// of the first one that does not.
func (c *Cluster) WaitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for i, url := range c.FunctionURLs() {
		if err := waitForOK(ctx, c.Functions[i], url+"/health/readiness"); err != nil {
			return err
		}
	}
	for i, url := range c.MetricsURLs() {
		if err := waitForOK(ctx, c.Sources[i], url); err != nil {
			return err
		}
	}
	return waitForOK(ctx, c.Ingest, c.IngestURL()+"/health")
}

// waitForOK waits until the process answers 200. It gives up on a process that ends three
// times meanwhile.
func waitForOK(ctx context.Context, p *supervisor.Process, url string) error {
	const deaths = 3
	restarts := p.Restarts()
	for {
		err := get(ctx, url)
		if err == nil {
			return nil
		}
		if p.Restarts() >= restarts+deaths {
			return fmt.Errorf("%s ends after each start: %s; its log is %s", p.Name(), p.LastLine(), p.LogFile())
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.Done():
			return fmt.Errorf("%s is %w", p.Name(), supervisor.ErrStopped)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log is %s", p.Name(), err, p.LogFile())
		}
	}
}

func get(ctx context.Context, url string) error {
	_, err := read(ctx, url)
	return err
}

// read returns the beginning of the body of a URL's answer with 200.
func read(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", url, resp.Status, supervisor.Shorten(strings.TrimSpace(string(body))))
	}
	return string(body), nil
}
