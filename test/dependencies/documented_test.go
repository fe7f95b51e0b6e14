package dependencies_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	root       = "../.."
	documented = root + "/docs/dependencies.md"
)

// row is a line of the table: a module and its reason.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|(.*)\\|$")

func TestEveryDirectDependencyIsDocumentedWithItsReason(t *testing.T) {
	t.Parallel()

	page, err := os.ReadFile(documented)
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, match := range row.FindAllStringSubmatch(string(page), -1) {
		modules = append(modules, match[1])
		if len(strings.Fields(match[2])) < 3 {
			t.Errorf("%s: no reason is stated", match[1])
		}
	}
	if diff := cmp.Diff(directDependencies(t), modules); diff != "" {
		t.Errorf("docs/dependencies.md does not list the direct dependencies of go.mod in their order (-go.mod +page):\n%s", diff)
	}
}

// directDependencies returns the modules that go.mod requires directly, sorted.
func directDependencies(t *testing.T) []string {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit -json: %v", err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, r := range file.Require {
		if !r.Indirect {
			modules = append(modules, r.Path)
		}
	}
	slices.Sort(modules)
	return modules
}
