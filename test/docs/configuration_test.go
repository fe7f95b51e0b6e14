package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// variable is an environment variable that a program reads.
type variable struct {
	defaultValue string
	required     bool
}

// readByFuncGo are the variables that func's server reads on behalf of a
// function.
var readByFuncGo = map[string]variable{"LISTEN_ADDRESS": {}}

func TestConfigurationHasEveryVariableOfEveryProgram(t *testing.T) {
	t.Parallel()

	programs := []map[string]variable{
		inFolder(t, "eventing/process", noTest), inFolder(t, "eventing/cmd/source", noTest), inFolder(t, "eventing/cmd/ingest", noTest),
	}
	maps.Copy(programs[0], readByFuncGo)
	columns := []string{"function", "source", "ingest"}

	table := tableAfter(t, "## Programs of a cluster")
	if diff := cmp.Diff(slices.Concat([]string{"variable"}, columns, []string{"meaning", "default"}), table[0]); diff != "" {
		t.Fatalf("columns (-want +got):\n%s", diff)
	}
	listed := make(map[string]bool)
	for _, row := range table[2:] {
		name := strings.Trim(row[0], "`")
		if listed[name] {
			t.Errorf("%s is there twice", name)
		}
		listed[name] = true
		for i, program := range programs {
			v, reads := program[name]
			if marked := row[i+1] == "✓"; marked != reads {
				t.Errorf("%s: %s reads it: %t, the table marks it: %t", name, columns[i], reads, marked)
			}
			text := row[len(row)-1]
			if reads && v.required && !strings.HasPrefix(text, "required") {
				t.Errorf("%s is required by %s, the table's default is %q", name, columns[i], text)
			}
			if reads && v.defaultValue != "" && text != "`"+v.defaultValue+"`" {
				t.Errorf("%s: the default of %s is %q, the table's is %q", name, columns[i], v.defaultValue, text)
			}
		}
	}
	for i, program := range programs {
		for _, name := range slices.Sorted(maps.Keys(program)) {
			if !listed[name] {
				t.Errorf("%s of %s is missing", name, columns[i])
			}
		}
	}
}

func TestConfigurationHasEveryVariableOfTheTool(t *testing.T) {
	t.Parallel()

	var listed []string
	for _, row := range tableAfter(t, "## The tool")[2:] {
		listed = append(listed, strings.Trim(row[0], "`"))
	}
	slices.Sort(listed)
	want := slices.Sorted(maps.Keys(inFolder(t, "eventing/cmd/tandem", noTest)))
	if diff := cmp.Diff(want, listed); diff != "" {
		t.Errorf("variables of the tool (-read +listed):\n%s", diff)
	}
}

// TestOurVariablesHaveOurPrefix reads every Go file except those of test/e2e,
// whose variables are the arguments of make e2e, and functionstest's own tests.
func TestOurVariablesHaveOurPrefix(t *testing.T) {
	t.Parallel()

	conventions := []string{
		"DATABASE_URL", "NATS_URL", "LISTEN_ADDRESS", "METRICS_ADDRESS", "PORT", "LOG_LEVEL", "K_SINK", "K_CA_CERTS", "K_CE_OVERRIDES",
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL",
		"GOGC", "GOMEMLIMIT", "GORACE", "PATH", "PIP_INDEX_URL", "PIP_CONFIG_FILE",
	}
	found := false
	for _, folder := range folders(t) {
		if folder == "test/e2e" || folder == "functions/functionstest" || folder == "eventing/telemetry" {
			continue
		}
		for name := range inFolder(t, folder, anyFile) {
			found = found || name == "TANDEM_CLUSTER"
			if !strings.HasPrefix(name, "TANDEM_") && !slices.Contains(conventions, name) {
				t.Errorf("%s reads %s: want the prefix TANDEM_", folder, name)
			}
		}
	}
	if !found {
		t.Error("no program reads TANDEM_CLUSTER: nothing was looked at")
	}
}

func anyFile(string) bool     { return true }
func noTest(path string) bool { return !strings.HasSuffix(path, "_test.go") }

// inFolder returns the environment variables that the Go files of a folder read:
// those in struct tags, and those that are looked up by a literal or a constant of
// the folder. It skips files for which match returns false.
func inFolder(t *testing.T, folder string, match func(path string) bool) map[string]variable {
	t.Helper()

	found := make(map[string]variable)
	constants := make(map[string]string)
	var lookups []ast.Expr
	paths, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if !match(path) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if n.Tag == nil {
					break
				}
				if tag, ok := reflect.StructTag(unquote(n.Tag)).Lookup("env"); ok {
					name, options, _ := strings.Cut(tag, ",")
					_, value, _ := strings.Cut(options, "default=")
					found[name] = variable{defaultValue: value, required: strings.Contains(options, "required")}
				}
			case *ast.CallExpr:
				if len(n.Args) == 1 && readsEnvironment(n.Fun) {
					lookups = append(lookups, n.Args[0])
				}
			case *ast.ValueSpec:
				for i, value := range n.Values {
					if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING && len(n.Names) == len(n.Values) {
						constants[n.Names[i].Name] = unquote(literal)
					}
				}
			}
			return true
		})
	}
	for _, name := range lookups {
		switch name := name.(type) {
		case *ast.BasicLit:
			found[unquote(name)] = variable{}
		case *ast.Ident:
			if value, ok := constants[name.Name]; ok {
				found[value] = variable{}
			}
		}
	}
	return found
}

// readsEnvironment reports whether a function of this name looks up a variable.
func readsEnvironment(function ast.Expr) bool {
	name := ""
	switch function := function.(type) {
	case *ast.Ident:
		name = function.Name
	case *ast.SelectorExpr:
		name = function.Sel.Name
	}
	switch name {
	case "Getenv", "LookupEnv", "getenv", "env":
		return true
	}
	return false
}

func unquote(literal *ast.BasicLit) string {
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return ""
	}
	return text
}

// folders returns the repository's folders.
func folders(t *testing.T) []string {
	t.Helper()

	var all []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !entry.IsDir():
			return nil
		case path != root && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata":
			return fs.SkipDir
		}
		folder, err := filepath.Rel(root, path)
		all = append(all, filepath.ToSlash(folder))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tableAfter returns the cells of the first table after a heading in
// docs/configuration.md.
func tableAfter(t *testing.T, heading string) [][]string {
	t.Helper()

	text, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/configuration.md has no %q", heading)
	}
	var rows [][]string
	for line := range strings.Lines(section) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(rows) > 0 {
				break
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%q of docs/configuration.md has no table", heading)
	}
	return rows
}
