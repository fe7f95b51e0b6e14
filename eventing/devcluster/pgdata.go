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

// pgData is a data folder, its owner and its password.
type pgData struct {
	// link is <Dir>/postgres; dir is the folder itself.
	link, dir string

	passFile string
	password string
	account  *supervisor.Account // nil means this process's

	// major is the version that created the data; 0 without data.
	major int
}

// openPGData returns the data folder of parent, which may not exist yet.
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
		// A link without its target is replaced.
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

// choose sets the location of new data: in parent if the account can enter it.
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
	// The link is created first: RemoveDir finds the data through it.
	return os.Symlink(d.dir, d.link)
}

// reachable returns a folder for data, for the case that the account cannot enter the
// data's own folder, for example in a clone in /root.
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
	return "", fmt.Errorf("user %s, who runs PostgreSQL for root, can enter neither this folder nor %s: start this in a folder that other users may enter", account, strings.Join(candidates, " nor "))
}

// inspect reads the version, the owner and the password of the data, if it exists.
func (d *pgData) inspect(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(d.dir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.major, err = strconv.Atoi(strings.TrimSpace(string(version))); err != nil {
		return fmt.Errorf("%s holds data of an unknown version of PostgreSQL: `make clean` removes the data", d.dir)
	}
	account, err := owner(d.dir)
	if err != nil {
		return err
	}
	switch {
	case int64(account.UID) == int64(os.Geteuid()) && account.UID != 0:
		d.account = nil
	case os.Geteuid() == 0 && account.UID != 0:
		d.account = account // PostgreSQL runs as the owner of the data
	default:
		return fmt.Errorf("%s belongs to user %s: start this as that user, or remove the data with `make clean`", d.dir, account)
	}
	if d.account != nil && !canReach(ctx, d.account, d.dir) {
		return fmt.Errorf("user %s owns %s and cannot enter it: open the folders above it to others", d.account, d.dir)
	}
	pass, err := os.ReadFile(d.passFile)
	if err != nil {
		return fmt.Errorf("read the password of the data in %s: %w; `make clean` removes the data", d.dir, err)
	}
	fields := strings.Split(strings.TrimSpace(string(pass)), ":")
	d.password = fields[len(fields)-1]
	return nil
}

// init creates the data folder unless it exists. It creates a folder beside it and then
// renames that, so that an interrupted initdb leaves no data that looks complete.
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
	cmd.SysProcAttr = supervisor.Attributes(0, d.account) // no death signal, because this thread may end first
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, initdbReason(string(out)))
	}
	return d.moveHere(fresh)
}

// makeFresh stores the password and creates an empty folder beside the data folder.
func (d *pgData) makeFresh() (string, error) {
	// One line: libpq and pgx differ in the other contents that a password file may
	// have.
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

// initdbReason returns the line of the output that has the cause.
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

// env returns the environment of PostgreSQL's programs: without variables that name another
// server, and with messages in English, which whyDead parses.
func (d *pgData) env() []string {
	return slices.Concat(withoutPG(os.Environ()), []string{"LC_ALL=C", "TZ=UTC"})
}

// withoutPG returns env without the variables that libpq and pgx read.
func withoutPG(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(s string) bool {
		return strings.HasPrefix(s, "PG")
	})
}

// waitUntilFree waits until no server uses the data, for example one whose supervisor was
// just killed. It fails if ctx ends first. It removes the lock file of a dead server: if
// another process has the same pid by now, PostgreSQL would refuse to start.
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
			return fmt.Errorf("another PostgreSQL (pid %d) uses %s: stop it with pg_ctl -D %s stop", pid, d.dir, d.dir)
		}
	}
}

// end stops a server that uses the data and is not a child of this process.
func (d *pgData) end(ctx context.Context, grace time.Duration) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		pid := d.serverPid()
		if pid == 0 {
			return
		}
		_ = syscall.Kill(pid, sig) // it may have ended already
		wait, cancel := context.WithTimeout(ctx, grace)
		_ = d.waitUntilFree(wait)
		cancel()
	}
}

// serverPid returns the pid of the server that uses the data; 0 if there is none.
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
