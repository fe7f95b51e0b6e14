package devcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// MinPostgres is the oldest major version of PostgreSQL that Tandem works with.
const MinPostgres = 15

// ErrNoPostgres says that no usable PostgreSQL server is installed.
var ErrNoPostgres = errors.New("no PostgreSQL server found")

// pgFolders are where distributions put PostgreSQL's programs, as patterns for
// [filepath.Glob].
var pgFolders = []string{
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

var pgVersion = regexp.MustCompile(`^postgres \(PostgreSQL\) (\d+)`)

// pgInstall is a folder with initdb, postgres and pg_ctl of one major version.
type pgInstall struct {
	dir   string
	major int
}

func (i pgInstall) program(name string) string { return filepath.Join(i.dir, name) }

// findPostgres looks for a server: only in bin if that is given, else wherever
// one may be, the newest. With wanted other than 0 only that major version will
// do: it is what an existing data folder needs.
func findPostgres(ctx context.Context, bin string, wanted int) (pgInstall, error) {
	var best pgInstall
	var others []string
	for _, dir := range pgCandidates(ctx, bin) {
		major, err := pgMajor(ctx, dir)
		switch {
		case err != nil:
		case major < MinPostgres, wanted != 0 && major != wanted:
			others = append(others, fmt.Sprintf("%d in %s", major, dir))
		case major > best.major:
			best = pgInstall{dir: dir, major: major}
		}
	}
	if best.major != 0 {
		return best, nil
	}
	need := fmt.Sprintf("version %d or newer", MinPostgres)
	if wanted != 0 {
		need = fmt.Sprintf("version %d, which made the data", wanted)
	}
	seen := ""
	if len(others) > 0 {
		seen = " (found " + strings.Join(others, ", ") + ")"
	}
	where := "; hack/install.sh postgres installs one, or name the folder of its initdb in TANDEM_PG_BIN"
	if bin != "" {
		where = fmt.Sprintf(" in %s, which TANDEM_PG_BIN names", bin)
	}
	return pgInstall{}, fmt.Errorf("%w: need %s%s%s", ErrNoPostgres, need, seen, where)
}

func pgCandidates(ctx context.Context, bin string) []string {
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
	for _, pattern := range pgFolders {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // the patterns are ours and well formed
		}
		dirs = append(dirs, found...)
	}
	return dirs
}

// pgMajor is the major version of the server in a folder; an error if there is
// none, or only a part of it (a client's package).
func pgMajor(ctx context.Context, dir string) (int, error) {
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		if info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			return 0, fmt.Errorf("%s in %s is no program", name, dir)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, err
	}
	m := pgVersion.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("postgres in %s gives no version", dir)
	}
	return strconv.Atoi(string(m[1]))
}
