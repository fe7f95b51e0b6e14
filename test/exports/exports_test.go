package exports_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// exceptions maps packages with more names than the limit to their number. A number
// may only decrease, and a package that is within the limit must leave the list.
var exceptions = map[string]int{}

// A package with one subject needs few names.
func TestPackagesExportFewNames(t *testing.T) {
	t.Parallel()

	looked := 0
	for _, folder := range folders(t, "functions", "sinkwriter", "eventing") {
		limit := 25
		if folder == "functions" {
			limit = 40 // for packages that users' code imports
		}
		names := exportedNames(t, folder)
		if len(names) > 0 {
			looked++
		}
		allowed, isException := exceptions[folder]
		switch {
		case isException && len(names) <= limit:
			t.Errorf("%s exports %d names, which is within the limit of %d: take it from the exceptions", folder, len(names), limit)
		case len(names) > max(limit, allowed):
			t.Errorf("%s exports %d names, want at most %d: %s", folder, len(names), max(limit, allowed), strings.Join(names, ", "))
		}
	}
	if looked < 10 {
		t.Errorf("only %d packages were looked at", looked)
	}
}

// folders returns the folders below tops.
func folders(t *testing.T, tops ...string) []string {
	t.Helper()

	var all []string
	for _, top := range tops {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			folder, err := filepath.Rel(root, path)
			all = append(all, filepath.ToSlash(folder))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// exportedNames returns the package-level names that the package in a folder exports:
// types, functions, variables and constants, not methods and fields.
func exportedNames(t *testing.T, folder string) []string {
	t.Helper()

	paths, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range slices.DeleteFunc(paths, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if file.Name.Name == "main" {
			return nil
		}
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					names = append(names, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						names = append(names, s.Name.Name)
					case *ast.ValueSpec:
						for _, name := range s.Names {
							names = append(names, name.Name)
						}
					}
				}
			}
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !ast.IsExported(name) })
	slices.Sort(names)
	return slices.Compact(names) // a name may be declared for each operating system
}
