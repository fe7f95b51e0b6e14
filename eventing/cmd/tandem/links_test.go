package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestItLinksNoFunction checks the packages that the tool links: no function, no test
// package, and no server.
func TestItLinksNoFunction(t *testing.T) {
	t.Parallel()

	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("go list has only %d packages", len(deps))
	}
	unwanted := regexp.MustCompile(`^github.com/tandem-fn/tandem($|/hack/|/test/|/eventing/(devcluster|process)|/functions/(chat|flights|functionstest)$)|nats-server`)
	for _, dep := range deps {
		if unwanted.MatchString(dep) {
			t.Errorf("it links %s", dep)
		}
	}
}
