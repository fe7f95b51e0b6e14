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
)

// listed is a package as go list describes it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  *struct{ Path string }
}

// TestEveryPackageCompilesFor32Bits because func's host builder makes an image for
// arm/v7 too, whatever is asked, and a number that does not fit into an int there
// stops it. Compiling everything once more would take minutes, so only types are
// checked, with the sizes of that machine.
func TestEveryPackageCompilesFor32Bits(t *testing.T) {
	t.Parallel()

	out := json.NewDecoder(strings.NewReader(run(t, root, os.Environ(), "go", "list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Module", "./...")))
	exports := make(map[string]string)
	var ours []listed
	for {
		var p listed
		if err := out.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Path == modulePath {
			ours = append(ours, p)
		}
	}
	files := token.NewFileSet()
	imports := importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range ours {
		var syntax []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			syntax = append(syntax, file)
		}
		config := types.Config{Importer: imports, Sizes: types.SizesFor("gc", "arm"), Error: func(err error) { t.Error(err) }}
		_, _ = config.Check(p.ImportPath, files, syntax, nil) // its error has been reported
	}
}
