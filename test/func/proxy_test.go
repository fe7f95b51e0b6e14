package func_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/hack/publish/proxy"
)

// root is the folder of our go.mod.
const root = "../.."

// published is this checkout as a module that can be downloaded, under a version
// of its own.
type published struct {
	version string

	// env makes the go command find it, and download everything else from its
	// usual sources.
	env []string
}

// publish lays the checkout out as a module proxy. The copies that the go command
// keeps of it are removed when the test ends.
func publish(t *testing.T) published {
	t.Helper()

	folder := t.TempDir()
	version, err := proxy.Write(root, folder, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := published{version: version}
	p.env = append(append(os.Environ(), proxy.Env(folder, goEnv(t, "GOPROXY"))...), "GOWORK=off", "GOFLAGS=-mod=mod -modcacherw")
	cache := goEnv(t, "GOMODCACHE")
	t.Cleanup(func() {
		kept, _ := filepath.Glob(filepath.Join(cache, "cache", "download", filepath.FromSlash(proxy.Module), "@v", p.version+"*"))
		for _, name := range append(kept, filepath.Join(cache, filepath.FromSlash(proxy.Module)+"@"+p.version)) {
			if err := os.RemoveAll(name); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

func goEnv(t *testing.T, name string) string {
	t.Helper()

	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// copyModule copies the module's files to folder.
func copyModule(t *testing.T, folder string) {
	t.Helper()

	err := proxy.Files(root, func(path string, in io.Reader) error {
		name := filepath.Join(folder, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		text, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		return os.WriteFile(name, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}
