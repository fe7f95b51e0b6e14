package devcluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// modulePath is the module whose programs are built.
const modulePath = "github.com/tandem-fn/tandem"

// Programs are the files of the programs of a run.
type Programs struct {
	Source   string // eventing/cmd/source
	Ingest   string // eventing/cmd/ingest
	Function string // hack/serve, the same program that func would build
	NATS     string // hack/nats
}

// Build compiles the programs into dir and writes the compiler's output to log.
func Build(ctx context.Context, dir string, log io.Writer) (Programs, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Programs{}, fmt.Errorf("build the programs: %w", err)
	}
	root, err := ModuleRoot(ctx)
	if err != nil {
		return Programs{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, fmt.Errorf("build the programs: %w", err)
	}
	// Without the version, because git reports it only to the owner of the clone.
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", dir+string(filepath.Separator),
		"./eventing/cmd/source", "./eventing/cmd/ingest", "./hack/serve", "./hack/nats")
	cmd.Dir = root
	cmd.Stdout = log
	cmd.Stderr = log
	if err := cmd.Run(); err != nil {
		return Programs{}, fmt.Errorf("build the programs: go build: %w", err)
	}
	return Programs{
		Source:   filepath.Join(dir, "source"),
		Ingest:   filepath.Join(dir, "ingest"),
		Function: filepath.Join(dir, "serve"),
		NATS:     filepath.Join(dir, "nats"),
	}, nil
}

// ModuleRoot returns the folder of Tandem's source, which has its go.mod. The working
// directory must be in Tandem's module, or in one that requires it.
func ModuleRoot(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-mod=mod", "-m", "-f", "{{.Dir}}", modulePath)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find Tandem's source: go list: %w: %s; start this in a clone of %s", err, strings.TrimSpace(stderr.String()), modulePath)
	}
	return strings.TrimSpace(string(out)), nil
}
