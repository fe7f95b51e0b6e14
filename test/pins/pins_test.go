package pins_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/pins.txt: only where a change is meant")

// instrument matches the creation of an instrument, and its name.
var instrument = regexp.MustCompile(`\.(?:Int64|Float64)(?:Observable)?(?:Counter|UpDownCounter|Gauge|Histogram)\(\s*"(tandem_\w+)"`)

func TestNothingPinnedHasMoved(t *testing.T) {
	t.Parallel()

	got := strings.Join(pins(t, os.DirFS("../..")), "\n") + "\n"
	const file = "testdata/pins.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("pinned content differs (-want +got); a database, a stream or a dashboard that exists depends on it. go test ./test/pins -update, if it is meant:\n%s", diff)
	}
}

// pins returns one line for each pinned file and each metric, sorted.
func pins(t *testing.T, root fs.FS) []string {
	t.Helper()

	var lines []string
	metrics := map[string]bool{}
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name != "." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		source := strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
		if !source && !pinned(path) {
			return nil
		}
		content, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		if source {
			for _, match := range instrument.FindAllStringSubmatch(string(content), -1) {
				metrics[match[1]] = true
			}
			return nil
		}
		lines = append(lines, fmt.Sprintf("%x %s", sha256.Sum256(content), filepath.Base(path)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range metrics {
		lines = append(lines, "metric "+name)
	}
	slices.Sort(lines)
	return lines
}

var migration = regexp.MustCompile(`(^|/)\d{4}_\w+\.sql$`)

// pinned reports whether the content of a file must not change.
func pinned(path string) bool {
	return strings.Contains(path, "testdata/") && (strings.HasSuffix(path, ".tsv") || strings.HasSuffix(path, ".golden")) || migration.MatchString(path)
}
