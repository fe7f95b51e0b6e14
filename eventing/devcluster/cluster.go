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

// clusterPorts is the number of ports of a cluster.
const clusterPorts = 5

// readyTimeout bounds the time until the processes of a cluster answer.
const readyTimeout = 30 * time.Second

// ClusterConfig sets up a [Cluster]. A field left at zero takes the default named
// beside it.
type ClusterConfig struct {
	// Name is the name of the cluster, for example east. Required.
	Name string

	// Function is the one that the source delivers to. Defaults to flights.
	Function string

	// Programs, DatabaseURL and NATSURL default to those of the [Deployment].
	Programs             Programs
	DatabaseURL, NATSURL string

	// Env are further variables for each process, for example "LOG_LEVEL=debug".
	Env []string
}

// Cluster stands for a Kubernetes cluster: a source, a function and an ingest address,
// each a process.
type Cluster struct {
	cfg ClusterConfig

	// firstPort is ingest's; the next ones are the function's, and those of the metrics of
	// source, ingest and function.
	firstPort int
	sink      string // URL by which the source reaches the function

	// Source, Function and Ingest are restarted if they are killed.
	Source, Function, Ingest *supervisor.Process
}

// newCluster returns a cluster without addresses.
func newCluster(cfg ClusterConfig) (*Cluster, error) {
	if cfg.Name == "" || cfg.DatabaseURL == "" || cfg.NATSURL == "" || cfg.Programs == (Programs{}) {
		return nil, errors.New("Name, Programs, DatabaseURL or NATSURL is missing")
	}
	cfg.Function = cmp.Or(cfg.Function, "flights")
	return &Cluster{cfg: cfg}, nil
}

func (c *Cluster) start(sup *supervisor.Supervisor) error {
	common := slices.Concat(processEnv(os.Environ()), []string{
		"TANDEM_CLUSTER=" + c.cfg.Name,
		"DATABASE_URL=" + c.cfg.DatabaseURL,
		"NATS_URL=" + c.cfg.NATSURL,
	}, c.cfg.Env)
	var err error
	c.Function, err = sup.Start(supervisor.ProcessConfig{
		Name:  c.cfg.Name + "-function",
		Path:  c.cfg.Programs.Function,
		Env:   slices.Concat(common, []string{"LISTEN_ADDRESS=" + c.address(1), "METRICS_ADDRESS=" + c.address(4)}),
		Stage: supervisor.StageFunctions,
	})
	if err != nil {
		return err
	}
	c.Source, err = sup.Start(supervisor.ProcessConfig{
		Name: c.cfg.Name + "-source",
		Path: c.cfg.Programs.Source,
		Env: slices.Concat(common, []string{
			"TANDEM_FUNCTION=" + c.cfg.Function,
			"K_SINK=" + c.sink,
			"METRICS_ADDRESS=" + c.address(2),
		}),
		Stage: supervisor.StageSources,
	})
	if err != nil {
		return err
	}
	c.Ingest, err = sup.Start(supervisor.ProcessConfig{
		Name:  c.cfg.Name + "-ingest",
		Path:  c.cfg.Programs.Ingest,
		Env:   slices.Concat(common, []string{"LISTEN_ADDRESS=" + c.address(0), "METRICS_ADDRESS=" + c.address(3)}),
		Stage: supervisor.StageSources,
	})
	return err
}

// processEnv returns env without the variables that configure Tandem's processes.
func processEnv(env []string) []string {
	return slices.DeleteFunc(withoutPG(env), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		switch name {
		case "DATABASE_URL", "NATS_URL", "LISTEN_ADDRESS", "METRICS_ADDRESS", "ADDRESS", "PORT",
			"TANDEM_CLUSTER", "TANDEM_FUNCTION", "TANDEM_FUNCTIONS", "TANDEM_STREAM", "TANDEM_STREAMS",
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

// Name returns the name of the cluster.
func (c *Cluster) Name() string { return c.cfg.Name }

// FunctionName returns the name of the function that the source delivers to.
func (c *Cluster) FunctionName() string { return c.cfg.Function }

// IngestURL returns the URL that accepts CloudEvents for the stream.
func (c *Cluster) IngestURL() string { return "http://" + c.address(0) }

// FunctionURL returns the URL of the function, which commits the effects of CloudEvents.
func (c *Cluster) FunctionURL() string { return "http://" + c.address(1) }

// MetricsURL returns the URL of the source's metrics in Prometheus' text format.
func (c *Cluster) MetricsURL() string { return "http://" + c.address(2) + "/metrics" }

// FunctionMetricsURL returns the URL of the function's metrics.
func (c *Cluster) FunctionMetricsURL() string { return "http://" + c.address(4) + "/metrics" }

// Processes returns the cluster's processes.
func (c *Cluster) Processes() []*supervisor.Process {
	return []*supervisor.Process{c.Function, c.Source, c.Ingest}
}

// Stop ends the whole cluster for good: first source and ingest, then the function.
func (c *Cluster) Stop(ctx context.Context) {
	c.all(func(p *supervisor.Process) { p.Stop(ctx) }, c.Source, c.Ingest)
	c.Function.Stop(ctx)
}

// Vanish kills the whole cluster for good, as when its data centre loses power.
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

// WaitUntilReady returns when all processes of the cluster answer. The error has the cause
// of the first one that does not.
func (c *Cluster) WaitUntilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, need := range []struct {
		process *supervisor.Process
		url     string
	}{
		{c.Function, c.FunctionURL() + "/health/readiness"},
		{c.Source, c.MetricsURL()},
		{c.Ingest, c.IngestURL() + "/health"},
	} {
		if err := waitForOK(ctx, need.process, need.url); err != nil {
			return err
		}
	}
	return nil
}

// waitForOK returns when the process answers 200. It gives up on a process that dies three
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
			return fmt.Errorf("%s ends whenever it is started: %s; its log is %s", p.Name(), p.LastLine(), p.LogFile())
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
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, supervisor.Shorten(strings.TrimSpace(string(body))))
	}
	return nil
}
