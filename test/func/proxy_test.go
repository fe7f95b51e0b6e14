package func_test

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// modulePath is this module.
const modulePath = "github.com/tandem-fn/tandem"

// root is the folder of our go.mod.
const root = "../.."

// made are the folders of things that are only made in a checkout.
var made = []string{".git", ".tandem", ".func", "bin"}

// published is this checkout as a module that others can get, under a version of
// its own.
type published struct {
	version string

	// env makes the go command find it, and take everything else from where it
	// always does.
	env []string
}

// publish lays the checkout out as a module proxy. What the go command then keeps
// of it is removed when the test ends.
func publish(t *testing.T) published {
	t.Helper()

	now := time.Now().UTC()
	p := published{version: fmt.Sprintf("v0.0.0-%s-%012x", now.Format("20060102150405"), now.UnixNano()&(1<<48-1))}
	proxy := t.TempDir()
	folder := filepath.Join(proxy, filepath.FromSlash(modulePath), "@v")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(map[string]any{"Version": p.version, "Time": now})
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"@v/list":                   nil, // no release
		"@latest":                   info,
		"@v/" + p.version + ".info": info,
		"@v/" + p.version + ".mod":  mod,
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(folder), filepath.FromSlash(name)), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	writeZip(t, filepath.Join(folder, p.version+".zip"), modulePath+"@"+p.version)

	p.env = append(os.Environ(),
		"GOPROXY=file://"+filepath.ToSlash(proxy)+","+goEnv(t, "GOPROXY"),
		"GONOSUMDB="+modulePath,
		"GONOPROXY=none",
		"GOWORK=off",
		"GOFLAGS=-mod=mod -modcacherw",
	)
	cache := goEnv(t, "GOMODCACHE")
	t.Cleanup(func() {
		kept, _ := filepath.Glob(filepath.Join(cache, "cache", "download", filepath.FromSlash(modulePath), "@v", p.version+"*"))
		for _, name := range append(kept, filepath.Join(cache, filepath.FromSlash(modulePath)+"@"+p.version)) {
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

// writeZip writes the module's files as the go command wants them.
func writeZip(t *testing.T, name, prefix string) {
	t.Helper()

	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // closed below, where it matters
	w := zip.NewWriter(out)
	eachFile(t, func(path string, in io.Reader) error {
		part, err := w.Create(prefix + "/" + path)
		if err != nil {
			return err
		}
		_, err = io.Copy(part, in)
		return err
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyModule copies the module's files to folder.
func copyModule(t *testing.T, folder string) {
	t.Helper()

	eachFile(t, func(path string, in io.Reader) error {
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
}

// eachFile calls do for each file of our module, without other modules in folders
// below and without what is only made here.
func eachFile(t *testing.T, do func(path string, in io.Reader) error) {
	t.Helper()

	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if slices.Contains(made, entry.Name()) || err == nil && path != root {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() || entry.Name() == ".git" {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close() //nolint:errcheck // only read from
		return do(filepath.ToSlash(rel), in)
	})
	if err != nil {
		t.Fatal(err)
	}
}
