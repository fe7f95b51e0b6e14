// Package proxy lays a checkout of this module out as a module proxy, so that other
// modules can download its current state, under a version of its own. A replace in
// their go.mod would not work: func builds a module that depends on theirs, and a
// replace only applies in the main module.
package proxy

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Module is this module.
const Module = "github.com/tandem-fn/tandem"

// Made are the names of folders that contain generated files in a checkout.
var Made = []string{".git", ".tandem", ".func", "bin"}

// Write lays the checkout whose go.mod is in root out in folder, and returns
// its version: one of its own, with the time now. Earlier versions are kept.
func Write(root, folder string, now time.Time) (version string, err error) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("publish: want the folder of a checkout: %w", err)
	}
	now = now.UTC()
	version = fmt.Sprintf("v0.0.0-%s-%012x", now.Format("20060102150405"), now.UnixNano()&(1<<48-1))
	info, err := json.Marshal(map[string]any{"Version": version, "Time": now})
	if err != nil {
		return "", err
	}
	base := filepath.Join(folder, filepath.FromSlash(Module))
	if err := os.MkdirAll(filepath.Join(base, "@v"), 0o755); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	if err := writeZip(root, filepath.Join(base, "@v", version+".zip"), Module+"@"+version); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	for _, file := range []struct {
		name string
		text []byte
	}{
		{"@v/" + version + ".info", info},
		{"@v/" + version + ".mod", mod},
		{"@v/list", nil}, // no release
		{"@latest", info},
	} {
		if err := os.WriteFile(filepath.Join(base, filepath.FromSlash(file.name)), file.text, 0o644); err != nil {
			return "", fmt.Errorf("publish: %w", err)
		}
	}
	return version, nil
}

// Env returns the settings with which the go command finds the module in folder, an
// absolute path, and downloads everything else from others, the previous GOPROXY.
func Env(folder, others string) []string {
	return []string{"GOPROXY=file://" + filepath.ToSlash(folder) + "," + others, "GONOSUMDB=" + Module, "GONOPROXY=none"}
}

// writeZip writes the module's files in the format that the go command expects.
func writeZip(root, name, prefix string) (err error) {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := zip.NewWriter(out)
	if err := Files(root, func(path string, in io.Reader) error {
		part, err := w.Create(prefix + "/" + path)
		if err != nil {
			return err
		}
		_, err = io.Copy(part, in)
		return err
	}); err != nil {
		return err
	}
	return w.Close()
}

// Files calls do for each file of the module in root, with its path relative to root.
// It skips other modules in folders below, and generated folders.
func Files(root string, do func(path string, in io.Reader) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if slices.Contains(Made, entry.Name()) || err == nil && path != root {
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
}
