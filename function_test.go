package tandem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem"
)

func TestFuncFindsOneWayToServeThePackage(t *testing.T) {
	t.Parallel()

	// func parses every file next to func.yaml, including tests, and requires
	// either New or Handle at package level, in a package other than main.
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if file.Name.Name == "main" {
			t.Errorf("%s is of package main", name)
		}
		for _, declaration := range file.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if ok && f.Recv == nil && (f.Name.Name == "New" || f.Name.Name == "Handle") {
				found = append(found, name+" "+f.Name.Name)
			}
		}
	}
	if diff := cmp.Diff([]string{"function.go New"}, found); diff != "" {
		t.Errorf("entry points (-want +got):\n%s", diff)
	}
}

func TestFunctionsCanBeServedTogether(t *testing.T) {
	t.Parallel()

	names := map[string]bool{}
	for _, f := range tandem.Functions() {
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
		if names[f.Name] {
			t.Errorf("two functions are named %s", f.Name)
		}
		names[f.Name] = true
	}
}
