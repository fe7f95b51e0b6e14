package devcluster_test

import (
	"context"
	"testing"

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
