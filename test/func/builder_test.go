package func_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildTimeout bounds a build with an empty build cache, on a machine with other
// load.
const buildTimeout = 8 * time.Minute

// funcCommand returns the func command in the version of hack/func; empty if
// there is none.
var funcCommand = sync.OnceValue(func() string {
	mod, err := os.ReadFile(filepath.Join(root, "hack", "func", "go.mod"))
	if err != nil {
		return ""
	}
	_, wanted, _ := strings.Cut(string(mod), "\nrequire knative.dev/func ")
	wanted, _, _ = strings.Cut(wanted, "\n")
	own, _ := filepath.Abs(filepath.Join(root, "bin", "func"))
	inPath, _ := exec.LookPath("func")
	for _, command := range []string{own, inPath} {
		version, err := exec.CommandContext(context.Background(), command, "version").Output()
		if err == nil && strings.TrimSpace(string(version)) == wanted {
			return command
		}
	}
	return ""
})

// scaffolder does what sync.OnceValues would, with a *testing.T.
var scaffolder struct {
	once sync.Once
	dir  string
	log  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if scaffolder.dir != "" {
		_ = os.RemoveAll(scaffolder.dir)
	}
	os.Exit(code)
}

// scaffold runs hack/func/scaffold, which it builds first.
func scaffold(t *testing.T, args ...string) (said string, err error) {
	t.Helper()

	scaffolder.once.Do(func() {
		if scaffolder.dir, scaffolder.err = os.MkdirTemp("", "scaffold"); scaffolder.err != nil { //nolint:usetesting // outlives the test that comes first
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
		defer cancel()
		build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, "hack", "func"), "-buildvcs=false", "-o", scaffolder.dir, "./scaffold")
		build.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
		var log []byte
		log, scaffolder.err = build.CombinedOutput()
		scaffolder.log = string(log)
	})
	if scaffolder.err != nil {
		t.Fatalf("build hack/func/scaffold: %v\n%s", scaffolder.err, scaffolder.log)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(scaffolder.dir, "scaffold"), args...).CombinedOutput()
	return string(out), err
}

// build builds a program from the function in folder as func does.
func build(t *testing.T, folder string, env []string) (program string) {
	t.Helper()

	scaffolding := filepath.Join(folder, ".func", "build")
	if funcCommand() != "" {
		// No registry is needed: build does not push.
		run(t, folder, env, funcCommand(), "build", "--builder", "host", "--registry", "registry.invalid/tests")
		program = filepath.Join(scaffolding, "result", "f."+runtime.GOOS+"."+runtime.GOARCH)
		if _, err := os.Stat(program); err == nil {
			return program
		}
		// On a system other than Linux, func built a program for Linux, which cannot run here.
	} else if said, err := scaffold(t, "-o", scaffolding, folder); err != nil {
		t.Fatalf("write scaffolding: %v\n%s", err, said)
	}
	program = filepath.Join(t.TempDir(), "f")
	run(t, scaffolding, append(env, "CGO_ENABLED=0"), "go", "build", "-o", program)
	return program
}

// run runs a command to its end and returns its output.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = env
	cmd.WaitDelay = 10 * time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, said.String())
	}
	return said.String()
}
