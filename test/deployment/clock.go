package deployment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tandem-fn/tandem/eventing/devcluster"
)

// clockVariable sets the offset of the clock in programs of BuildWrong.
const clockVariable = "TANDEM_TEST_CLOCK"

// clockSource is added to package time, and clockCall to its Now.
const (
	clockSource = `package time

import "syscall"

var tandemClock = func() int64 {
	text, _ := syscall.Getenv("` + clockVariable + `")
	d, _ := ParseDuration(text)
	return int64(d / Second)
}()
`
	clockBefore = "sec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	clockCall   = "sec, nsec, mono := runtimeNow()\n\tsec += tandemClock\n\tif mono == 0 {"
)

// BuildWrong compiles the programs of a cluster into dir with a clock that is off by the
// duration in TANDEM_TEST_CLOCK, such as 1h. The programs' own code is not changed. They
// are built with another package time, because a Go program reads the time from the system
// without a library that could be replaced.
func BuildWrong(ctx context.Context, dir string, programs devcluster.Programs, log io.Writer) (devcluster.Programs, error) {
	overlay, err := wrongTime(ctx, dir)
	if err != nil {
		return devcluster.Programs{}, fmt.Errorf("build with a wrong clock: %w", err)
	}
	const module = "github.com/tandem-fn/tandem/"
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-overlay", overlay, "-o", dir+string(filepath.Separator),
		module+"eventing/cmd/source", module+"eventing/cmd/ingest", module+"test/deployment/function")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return devcluster.Programs{}, fmt.Errorf("build with a wrong clock: %w", err)
	}
	programs.Source, programs.Ingest, programs.Function = filepath.Join(dir, "source"), filepath.Join(dir, "ingest"), filepath.Join(dir, "function")
	return programs, nil
}

// wrongTime writes the replacements for files of package time, and returns the
// overlay file that lists them.
func wrongTime(ctx context.Context, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	original, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return "", err
	}
	text := strings.Replace(string(original), clockBefore, clockCall, 1)
	if text == string(original) {
		return "", errors.New("time.Now has changed since Go 1.26: adapt clockBefore in test/deployment/clock.go")
	}
	replace := map[string]string{}
	for name, content := range map[string]string{"time.go": text, "tandem_clock.go": clockSource} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(folder, name)] = file
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}
