package devcluster

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgbin"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
)

// pgData is a data folder, who works on it, and its password.
type pgData struct {
	// link is <Dir>/postgres, dir where it really is.
	link, dir string

	passFile string
	password string
	account  *supervisor.Account // nil: whoever we are

	// major is the version that made the data; 0 if there is none yet.
	major int
}

// openPGData finds out where the data is, or is to be, and whose.
func openPGData(ctx context.Context, parent string) (pgData, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return pgData{}, err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return pgData{}, err
	}
	if parent, err = filepath.EvalSymlinks(parent); err != nil {
		return pgData{}, err
	}
	d := pgData{
		link:     filepath.Join(parent, "postgres"),
		passFile: filepath.Join(parent, "pgpass"),
	}
	if d.account, err = unprivileged(); err != nil {
		return pgData{}, err
	}
	real, err := filepath.EvalSymlinks(d.link)
	switch {
	case err == nil:
		d.dir = real
	case errors.Is(err, os.ErrNotExist):
		// A link whose target is gone is a folder to be made anew.
		if err := os.Remove(d.link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return pgData{}, err
		}
		if err := d.choose(ctx, parent); err != nil {
			return pgData{}, err
		}
	default:
		return pgData{}, err
	}
	return d, d.inspect(ctx)
}

// choose decides where the data is to be: in parent if the account can get there.
func (d *pgData) choose(ctx context.Context, parent string) error {
	d.dir = d.link
	if d.account == nil || canReach(ctx, d.account, parent) {
		return nil
	}
	elsewhere, err := reachable(ctx, d.account)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parent))
	d.dir = filepath.Join(elsewhere, fmt.Sprintf("postgres-%x", sum[:6]))
	// The link comes first: whoever cleans up finds by it what was made.
	return os.Symlink(d.dir, d.link)
}

// reachable is a folder for the data of those whose own folder is closed to
// others, as a clone in /root is.
func reachable(ctx context.Context, account *supervisor.Account) (string, error) {
	candidates := []string{"/var/lib/tandem", filepath.Join(os.TempDir(), "tandem")}
	for _, dir := range candidates {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			continue
		}
		if canReach(ctx, account, dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("user %s, as whom PostgreSQL runs for root, can enter neither this folder nor %s: start this in a folder that others may enter", account, strings.Join(candidates, " nor "))
}

// inspect looks at what is in the data folder.
func (d *pgData) inspect(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(d.dir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.major, err = strconv.Atoi(strings.TrimSpace(string(version))); err != nil {
		return fmt.Errorf("%s holds data of an unknown version of PostgreSQL: `make clean` starts anew without the data", d.dir)
	}
	who, err := owner(d.dir)
	if err != nil {
		return err
	}
	switch {
	case int64(who.UID) == int64(os.Geteuid()) && who.UID != 0:
		d.account = nil
	case os.Geteuid() == 0 && who.UID != 0:
		d.account = who // whoever made the data can go on
	default:
		return fmt.Errorf("%s belongs to user %s: start this as that user, or `make clean` to start anew without the data", d.dir, who)
	}
	if d.account != nil && !canReach(ctx, d.account, d.dir) {
		return fmt.Errorf("user %s, who owns %s, cannot enter it: open the folders above it to others", d.account, d.dir)
	}
	pass, err := os.ReadFile(d.passFile)
	if err != nil {
		return fmt.Errorf("read the password of the data in %s: %w; `make clean` starts anew without the data", d.dir, err)
	}
	fields := strings.Split(strings.TrimSpace(string(pass)), ":")
	d.password = fields[len(fields)-1]
	return nil
}

// init makes the data folder unless there is one. It is made beside its place
// and then moved there, so an interrupted one leaves nothing that looks whole.
func (d *pgData) init(ctx context.Context, bin pgbin.Install) error {
	if d.major != 0 {
		return nil
	}
	d.password = rand.Text()
	fresh, err := d.makeFresh()
	if err != nil {
		return err
	}
	pwFile := fresh + ".password"
	if err := os.WriteFile(pwFile, []byte(d.password+"\n"), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(pwFile) }()
	if err := chown(pwFile, d.account); err != nil {
		return err
	}

	cmd := exec.CommandContext(ctx, bin.Program("initdb"), "-D", fresh, "-U", pgSuperuser, "--pwfile", pwFile,
		"--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C")
	cmd.Dir = fresh
	cmd.Env = d.env()
	cmd.SysProcAttr = supervisor.Attributes(0, d.account) // no death signal: this thread may end before
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, initdbReason(string(out)))
	}
	return d.moveHere(fresh)
}

// makeFresh stores the password and makes an empty folder beside the data's place.
func (d *pgData) makeFresh() (string, error) {
	// Dialects differ in what a password file may hold besides; one line will do.
	if err := os.WriteFile(d.passFile, []byte("127.0.0.1:*:*:*:"+d.password+"\n"), 0o600); err != nil {
		return "", err
	}
	fresh := d.dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	return fresh, mkdirFor(fresh, d.account)
}

func (d *pgData) moveHere(fresh string) error {
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	return os.Rename(fresh, d.dir)
}

// initdbReason picks the line that says why initdb gave up.
func initdbReason(out string) string {
	if strings.Contains(out, "No space left on device") {
		return "no space left on the disk: make room, then start again"
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines {
		if strings.Contains(line, "error:") || strings.Contains(line, "FATAL:") {
			return supervisor.Shorten(line)
		}
	}
	return supervisor.Shorten(lines[len(lines)-1])
}

// env is what PostgreSQL's programs get: nothing that points them elsewhere, and
// messages in English, which we read.
func (d *pgData) env() []string {
	return slices.Concat(withoutPG(os.Environ()), []string{"LC_ALL=C", "TZ=UTC"})
}

// withoutPG drops the variables that libpq and pgx would follow.
func withoutPG(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		return strings.HasPrefix(s, "PG")
	})
}

// waitUntilFree returns when no server works on the data, for example one whose
// supervisor was killed a moment ago; an error if ctx is done before. A lock
// file that a dead server left is removed: its number may belong to another
// process by now, and then PostgreSQL would refuse to start.
func (d *pgData) waitUntilFree(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		pid := d.serverPid()
		if pid == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("another PostgreSQL (pid %d) works on %s: stop it with pg_ctl -D %s stop", pid, d.dir, d.dir)
		}
	}
}

// end ends a server that is not our child, if one works on the data.
func (d *pgData) end(ctx context.Context, grace time.Duration) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		pid := d.serverPid()
		if pid == 0 {
			return
		}
		_ = syscall.Kill(pid, sig) // gone already is what we want
		wait, cancel := context.WithTimeout(ctx, grace)
		_ = d.waitUntilFree(wait)
		cancel()
	}
}

// serverPid is the number of the server that works on the data; 0 if none does.
func (d *pgData) serverPid() int {
	file := filepath.Join(d.dir, "postmaster.pid")
	content, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || !worksIn(pid, d.dir) {
		_ = os.Remove(file)
		return 0
	}
	return pid
}
