//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

const namespace = "tandem"

// cluster is one of the two clusters.
type cluster struct {
	name, kubeconfig string
}

// try runs kubectl; the error includes its output.
func (c cluster) try(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	var said, wrong strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &wrong
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: kubectl %s: %w: %s", c.name, strings.Join(args, " "), err, wrong.String())
	}
	return said.String(), nil
}

// do runs kubectl and ends the test if that fails.
func (c cluster) do(t *testing.T, args ...string) string {
	t.Helper()

	said, err := c.try(within(t, 3*time.Minute), args...)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// pods returns the number of pods with a label that are running or starting.
func (c cluster) pods(t *testing.T, label string) int {
	t.Helper()

	return len(strings.Fields(c.do(t, "-n", namespace, "get", "pods", "-l", label, "-o", "name")))
}

// makeConfig copies config/ and writes the user's settings into the copy: images and
// addresses.
func makeConfig(t *testing.T, o options, s *servers) string {
	t.Helper()

	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "config")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config"))); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t, 10*time.Minute), "go", "run", "-C", filepath.Join(root, "hack", "images"), ".",
		"--registry", o.Registry, "--platforms", "linux/"+runtime.GOARCH, "--kustomization", filepath.Join(dir, "images", "kustomization.yaml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("images: %v\n%s", err, out)
	} else {
		t.Logf("images:\n%s", out)
	}
	for _, name := range []string{"east", "west"} {
		overlay := filepath.Join(dir, "overlays", name)
		write(t, filepath.Join(overlay, "addresses.env"), fmt.Sprintf("database-url=postgres://tandem_writer:%s@%s:%d/tandem\nnats-url=nats://%s:%d\n",
			password, o.HostFromPods, s.Postgres().Port(), o.HostFromPods, s.NATS[0].Port()))
		write(t, filepath.Join(overlay, "migrate.env"), fmt.Sprintf("database-url=postgres://tandem_migrator:%s@%s:%d/tandem\n", password, o.HostFromPods, s.Postgres().Port()))
		// A single NATS server cannot create streams with three replicas, and the
		// ports here are arbitrary free ones.
		change(t, filepath.Join(overlay, "kustomization.yaml"), "configMapGenerator:\n", fmt.Sprintf(`patches:
  - target: {kind: NetworkPolicy, name: to-database}
    patch: |-
      - {op: replace, path: /spec/egress/0/ports/0/port, value: %d}
  - target: {kind: NetworkPolicy, name: to-stream}
    patch: |-
      - {op: replace, path: /spec/egress/0/ports/0/port, value: %d}
configMapGenerator:
  - {name: env-source, behavior: merge, literals: [TANDEM_STREAM_REPLICAS=1]}
  - {name: env-function, behavior: merge, literals: [TANDEM_STREAM_REPLICAS=1]}
  - {name: env-ingest, behavior: merge, literals: [TANDEM_STREAM_REPLICAS=1]}
`, s.Postgres().Port(), s.NATS[0].Port()))
	}
	return dir
}

func write(t *testing.T, file, content string) {
	t.Helper()

	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func change(t *testing.T, file, old, text string) {
	t.Helper()

	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	write(t, file, strings.Replace(string(content), old, text, 1))
}

// install applies the cluster's overlay and waits until everything is ready.
func (c cluster) install(t *testing.T, config string) {
	t.Helper()

	begun := time.Now()
	c.do(t, "apply", "-k", filepath.Join(config, "overlays", c.name))
	t.Cleanup(func() {
		if t.Failed() {
			c.tell(t)
		}
	})
	c.do(t, "-n", namespace, "wait", "--timeout=170s", "--for=condition=complete", "job/migrate", "job/migrate-flights")
	c.ready(t)
	t.Logf("%s: installed in %s", c.name, time.Since(begun).Round(100*time.Millisecond))
}

// ready waits until services and sources are ready.
func (c cluster) ready(t *testing.T) {
	t.Helper()

	c.do(t, "-n", namespace, "wait", "--timeout=170s", "--for=condition=Ready", "ksvc", "--all")
	c.do(t, "-n", namespace, "wait", "--timeout=170s", "--for=condition=Ready", "containersources.sources.knative.dev", "--all")
}

// tell logs the state of the cluster, for debugging.
func (c cluster) tell(t *testing.T) {
	t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "ksvc,containersources.sources.knative.dev,jobs,pods"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "-l", "app.kubernetes.io/part-of=tandem", "--all-containers", "--prefix", "--tail=20"},
	} {
		said, err := c.try(ctx, append([]string{"-n", namespace}, args...)...)
		t.Logf("%s: %s:\n%s%v", c.name, strings.Join(args, " "), said, err)
	}
}

// remove deletes the namespace.
func (c cluster) remove(t *testing.T) {
	t.Helper()

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	// Serving lets a pod drain for minutes, which the test does not wait for.
	if _, err := c.try(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--wait=false"); err != nil {
		t.Error(err)
	}
	_, _ = c.try(ctx, "-n", namespace, "delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false")
	if _, err := c.try(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=150s"); err != nil {
		t.Error(err)
	}
}

// ingest returns a URL on this machine that leads to the cluster's ingest.
func (c cluster) ingest(t *testing.T) string {
	t.Helper()

	pod := strings.Fields(c.do(t, "-n", namespace, "get", "pods", "-l", "serving.knative.dev/service=ingest", "--field-selector=status.phase=Running", "-o", "name"))[0]
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "kubectl", "--kubeconfig", c.kubeconfig, "-n", namespace, "port-forward", pod, ":8012")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("port-forward: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(line)
	if port == nil {
		t.Fatalf("port-forward says %q", line)
	}
	return "http://127.0.0.1:" + port[1]
}

// run runs a command that the user configured.
func run(t *testing.T, command string) {
	t.Helper()

	if out, err := exec.CommandContext(within(t, time.Minute), "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}
