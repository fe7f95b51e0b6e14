package devcluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

func newSupervisor(t *testing.T, cfg supervisor.Config) *supervisor.Supervisor {
	t.Helper()
	cfg.LogDir = t.TempDir()
	sup, err := supervisor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sup.Stop(context.WithoutCancel(t.Context())) })
	return sup
}

// eventually waits until something is so, for at most 20 seconds.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
