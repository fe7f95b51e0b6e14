//go:build e2e

package e2e

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/sethvargo/go-envconfig"
)

// options are parsed from the environment, which doc.go explains.
type options struct {
	East         string `env:"EAST, required"`
	West         string `env:"WEST, required"`
	Registry     string `env:"REGISTRY, default=localhost:5000/tandem"`
	HostFromPods string `env:"HOST_FROM_PODS, default=host.docker.internal"`
	CutWest      string `env:"CUT_WEST"`
	HealWest     string `env:"HEAL_WEST"`
	CutEast      string `env:"CUT_EAST"`
	HealEast     string `env:"HEAL_EAST"`
	CutSeconds   int    `env:"CUT_SECONDS, default=60"`
	Keep         string `env:"KEEP"`
}

func readOptions(t *testing.T) options {
	t.Helper()

	var o options
	if err := envconfig.Process(t.Context(), &o); err != nil {
		t.Fatalf("%v: doc.go says what is needed", err)
	}
	for _, file := range []string{o.East, o.West} {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("kubeconfig: %v", err)
		}
	}
	return o
}

// within returns a context that ends after d, or when the test ends.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok returns true.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()

	begun := time.Now()
	for !ok() {
		if time.Since(begun) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begun)
}
