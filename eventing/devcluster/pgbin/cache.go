package pgbin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// lockPoll is the time between checks whether another process has finished its
	// download.
	lockPoll = 100 * time.Millisecond

	// unfinished is the prefix of files and folders of an unfinished download.
	unfinished = "unfinished-"
)

func (c Config) withDefaults() Config {
	c.PyPI = cmp.Or(c.PyPI, pipIndex())
	c.Maven = cmp.Or(c.Maven, os.Getenv("TANDEM_MAVEN_URL"), "https://repo1.maven.org/maven2")
	if c.Progress == nil {
		c.Progress = os.Stderr
	}
	return c
}

// sayf writes a line about a download.
func (c Config) sayf(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Progress, "tandem: "+format+"\n", args...)
}

// cacheDir returns the folder of downloaded builds, which is created if missing.
func (c Config) cacheDir() (string, error) {
	dir := c.CacheDir
	root := os.Geteuid() == 0
	switch {
	case dir != "":
	case root:
		dir = "/var/cache/tandem"
	default:
		parent, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder: %w", err)
		}
		dir = filepath.Join(parent, "tandem")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create the cache folder: %w", err)
	}
	if root { // another account runs the server; a strict umask would deny it access
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", fmt.Errorf("open the cache folder to others: %w", err)
		}
	}
	return filepath.Abs(dir)
}

// findPinned returns the first of the builds that is in the cache and starts, or
// can be downloaded and starts.
func findPinned(ctx context.Context, cfg Config, builds []Build, need string) (Install, error) {
	if len(builds) == 0 {
		return Install{}, fmt.Errorf("there is no build for %s", here())
	}
	cache, err := cfg.cacheDir()
	if err != nil {
		return Install{}, err
	}
	if i, ok := firstInstalled(ctx, cache, builds); ok {
		return i, nil
	}
	unlock, err := lockCache(ctx, cfg, cache)
	if err != nil {
		return Install{}, err
	}
	defer unlock()
	if i, ok := firstInstalled(ctx, cache, builds); ok { // another process has unpacked it
		return i, nil
	}
	removeUnfinished(cache)
	cfg.sayf("no PostgreSQL server of %s is installed; downloading one into %s, once", need, cache)
	var failed []error
	for _, b := range builds {
		i, err := b.install(ctx, cfg, cache)
		if err == nil {
			return i, nil
		}
		err = fmt.Errorf("%s: %w", b.registry(), explain(err, cache))
		failed = append(failed, err)
		if ctx.Err() != nil || isFull(err) {
			break // another registry would not help
		}
		cfg.sayf("downloading failed: %v", err)
	}
	return Install{}, joinLine(failed)
}

func firstInstalled(ctx context.Context, cache string, builds []Build) (Install, bool) {
	for _, b := range builds {
		if i, err := b.installed(ctx, cache); err == nil {
			return i, true
		}
	}
	return Install{}, false
}

// installed returns the build in the cache, or an error if it is missing or does not
// start.
func (b Build) installed(ctx context.Context, cache string) (Install, error) {
	i := Install{Dir: filepath.Join(cache, b.name(), b.bin())}
	var err error
	i.Major, err = majorIn(ctx, i.Dir)
	if err == nil && i.Major != b.Major {
		err = fmt.Errorf("%s is version %d, want %d", i.Dir, i.Major, b.Major)
	}
	return i, err
}

// install downloads the build, unpacks it beside its final folder and moves it there.
func (b Build) install(ctx context.Context, cfg Config, cache string) (Install, error) {
	fresh, err := b.fetch(ctx, cfg, cache)
	if err != nil {
		return Install{}, err
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	if _, err := majorIn(ctx, filepath.Join(fresh, b.bin())); err != nil {
		return Install{}, err
	}
	final := filepath.Join(cache, b.name())
	if err := os.RemoveAll(final); err != nil { // one that does not start
		return Install{}, err
	}
	if err := os.Rename(fresh, final); err != nil {
		return Install{}, err
	}
	cfg.sayf("PostgreSQL %s is in %s", b.Version, final)
	return b.installed(ctx, cache)
}

// fetch returns a new folder with the unpacked build.
func (b Build) fetch(ctx context.Context, cfg Config, cache string) (string, error) {
	archive, err := b.download(ctx, cfg, cache)
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(archive) }()
	fresh, err := os.MkdirTemp(cache, unfinished)
	if err != nil {
		return "", err
	}
	err = os.Chmod(fresh, 0o755)
	if err == nil {
		err = b.unpack(ctx, archive, fresh)
	}
	if err != nil {
		_ = os.RemoveAll(fresh)
		return "", err
	}
	return fresh, nil
}

// Verify downloads the build, compares its sum, unpacks it and checks that its programs
// exist, without starting them. It leaves nothing in the cache.
func Verify(ctx context.Context, cfg Config, b Build) error {
	cfg = cfg.withDefaults()
	cache, err := cfg.cacheDir()
	if err != nil {
		return err
	}
	unlock, err := lockCache(ctx, cfg, cache)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := b.fetch(ctx, cfg, cache)
	if err != nil {
		return explain(err, cache)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, name := range []string{"initdb", "pg_ctl", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, b.bin(), name))
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o111 == 0 {
			return fmt.Errorf("%s is not executable", name)
		}
	}
	return nil
}

// lockCache waits until no other process downloads. The system releases the lock of a
// process that is killed.
func lockCache(ctx context.Context, cfg Config, cache string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for told := false; ; told = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = file.Close()
			return nil, fmt.Errorf("lock the cache folder: %w", err)
		}
		if !told {
			cfg.sayf("another process is downloading PostgreSQL into %s; waiting for it", cache)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("wait for the process that downloads PostgreSQL into %s: %w", cache, ctx.Err())
		}
	}
}

// removeUnfinished removes the files of killed downloads. The caller holds the lock.
func removeUnfinished(cache string) {
	left, err := filepath.Glob(filepath.Join(cache, unfinished+"*"))
	if err != nil {
		return
	}
	for _, name := range left {
		_ = os.RemoveAll(name) // it only wastes space
	}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// explain adds the remedy if the system's message has none.
func explain(err error, cache string) error {
	if isFull(err) {
		return fmt.Errorf("no space left: free 150 MB in %s, then start again: %w", cache, err)
	}
	return err
}

// joinLine joins errors into one of a single line.
func joinLine(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return &lineError{text: strings.Join(texts, "; "), errs: errs}
}

// lineError is several errors in one line.
type lineError struct {
	text string
	errs []error
}

func (e *lineError) Error() string   { return e.text }
func (e *lineError) Unwrap() []error { return e.errs }
