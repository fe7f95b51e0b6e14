package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Programs are the files of the programs of a trial.
type Programs struct {
	Source, Function, ByHand, NATS string
}

const module = "github.com/tandem-fn/tandem/"

// Build builds the programs into a folder, as for an image but with symbols. The working
// directory must be in this module.
func Build(ctx context.Context, dir string) (Programs, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-o", dir+string(filepath.Separator),
		module+"eventing/cmd/source", module+"test/bench/e2e/function", module+"test/bench/e2e/byhand", module+"hack/nats")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("build the programs: %w: %s", err, bytes.TrimSpace(out))
	}
	return Programs{
		Source:   filepath.Join(dir, "source"),
		Function: filepath.Join(dir, "function"),
		ByHand:   filepath.Join(dir, "byhand"),
		NATS:     filepath.Join(dir, "nats"),
	}, nil
}
