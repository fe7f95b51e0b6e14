//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// scale makes both clusters run a function that needs 50 ms for each event, and sends
// more events than a single instance of each can compute, even if the clusters divide
// the work. Knative adds instances, and removes them when everything is committed.
func scale(t *testing.T, o options, s *servers, east, west cluster, config string) {
	t.Helper()

	const perSecond, n = 60, 3600 // an instance computes 20 events per second
	image := slowImage(t, o)
	clusters := []cluster{east, west}
	for _, c := range clusters {
		folder := variant(t, config, c.name, "")
		function := filepath.Join(folder, "..", "..", "functions", "flights", "function.yaml")
		change(t, function, "image: tandem/functions", "image: "+image)
		change(t, function, "autoscaling.knative.dev/metric: concurrency\n", "autoscaling.knative.dev/metric: concurrency\n        autoscaling.knative.dev/window: 6s\n")
		c.do(t, "apply", "-k", folder)
	}
	revisions := make([]string, len(clusters))
	for i, c := range clusters {
		// The source itself may stay unready after its sink was deleted and recreated: Knative
		// looks for the sink's address again hours later. It keeps the previous one.
		c.do(t, "-n", namespace, "wait", "--timeout=170s", "--for=condition=Ready", "ksvc", "--all")
		c.do(t, "-n", namespace, "rollout", "status", "--timeout=170s", "deployment", "-l", sourcePods)
		revisions[i] = c.do(t, "-n", namespace, "get", "ksvc", "flights", "-o", "jsonpath={.status.latestReadyRevisionName}")
	}
	instances := func(i int) int {
		return strings.Count(clusters[i].do(t, "-n", namespace, "get", "pods", "-l", "serving.knative.dev/revision="+revisions[i],
			"-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}`), "True")
	}

	f := s.feed(t, perSecond, others("/e2e/scale", n))
	most := make([]int, len(clusters))
	begun := time.Now()
	eventually(t, 3*time.Minute, "all are sent", func() bool {
		for i, c := range clusters {
			now := instances(i)
			if now > 1 && most[i] <= 1 {
				t.Logf("%s has %d instances after %s", c.name, now, time.Since(begun).Round(100*time.Millisecond))
			}
			most[i] = max(most[i], now)
		}
		time.Sleep(time.Second)
		return f.Complete()
	})
	committed := func() int64 { return s.count(t, "select count(*) from flights where source = '/e2e/scale'") }
	t.Logf("after %d events, %d of them committed, at most %v instances were ready", n, committed(), most)
	for i, c := range clusters {
		if most[i] <= 1 {
			t.Errorf("%s had at most %d ready instances, want more", c.name, most[i])
		}
	}
	took := eventually(t, 3*time.Minute, "all are committed", func() bool { return committed() == n })
	t.Logf("all committed after another %s", took.Round(100*time.Millisecond))
	if rows, total := s.count(t, "select count(*) from flights"), s.count(t, "select sum(flights)::bigint from airports"); rows != total {
		t.Errorf("%d flights, but the airports count %d", rows, total)
	}
	if n := s.count(t, "select count(*) from tandem.dead_letter"); n != 0 {
		t.Errorf("%d dead letters", n)
	}
	took = eventually(t, 6*time.Minute, "both functions are at zero", func() bool { return east.pods(t, functionPods)+west.pods(t, functionPods) == 0 })
	t.Logf("both functions at zero after another %s", took.Round(time.Second))
}

// slowImage pushes the image of the function in the folder slow, and returns its name.
func slowImage(t *testing.T, o options) string {
	t.Helper()

	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t, 10*time.Minute), "go", "run", "-C", filepath.Join(root, "hack", "images"), ".",
		"--registry", o.Registry, "--tag", "slow", "--platforms", "linux/"+runtime.GOARCH, "--only", "functions", "--functions", "./test/e2e/slow")
	var wrong strings.Builder
	cmd.Stderr = &wrong
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("image: %v\n%s", err, wrong.String())
	}
	return strings.Fields(string(out))[0]
}
