package func_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/hack/publish/proxy"
)

// listed is a package as go list describes it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Path string }
}

// TestEveryPackageCompilesFor32Bits checks the types of all packages with 32-bit
// sizes. func's host builder always builds an image for arm/v7, too, and a
// constant that overflows an int there breaks it. Compiling everything again would
// take minutes.
func TestEveryPackageCompilesFor32Bits(t *testing.T) {
	t.Parallel()

	out := json.NewDecoder(strings.NewReader(run(t, root, os.Environ(), "go", "list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Module", "./...")))
	exports := make(map[string]string)
	var ours, sized []listed
	for {
		var p listed
		if err := out.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Path == proxy.Module {
			ours = append(ours, p)
		}
		// Its constants contain the size of an int.
		if p.ImportPath == "math" || p.ImportPath == "math/bits" {
			sized = append(sized, p)
		}
	}
	c := checker{files: token.NewFileSet(), checked: make(map[string]*types.Package)}
	c.exports = importer.ForCompiler(c.files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range sized {
		c.checked[p.ImportPath] = c.check(t, p, true)
	}
	for _, p := range ours {
		c.check(t, p, false)
	}
}

// checker checks packages with the sizes of arm. Their imports are those compiled
// for this machine, except for packages that it has checked itself.
type checker struct {
	files   *token.FileSet
	exports types.Importer
	checked map[string]*types.Package
}

// Import implements [types.Importer].
func (c checker) Import(path string) (*types.Package, error) {
	if p, ok := c.checked[path]; ok {
		return p, nil
	}
	return c.exports.Import(path)
}

func (c checker) check(t *testing.T, p listed, onlyDeclarations bool) *types.Package {
	t.Helper()

	var syntax []*ast.File
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(c.files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		syntax = append(syntax, file)
	}
	config := types.Config{
		Importer:         c,
		Sizes:            types.SizesFor("gc", "arm"),
		IgnoreFuncBodies: onlyDeclarations,
		Error:            func(err error) { t.Error(err) },
	}
	checked, _ := config.Check(p.ImportPath, c.files, syntax, nil) // its error has been reported
	return checked
}
