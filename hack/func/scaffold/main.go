// Command scaffold reads func.yaml files as func does, but strictly, and writes
// func's scaffolding around a function:
//
//	scaffold FOLDER...        checks FOLDER/func.yaml
//	scaffold -o OUT FOLDER    checks it, and creates OUT, in which go build works
//
// It replaces the func command, which takes minutes to build, where that is
// missing.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"gopkg.in/yaml.v2"
	fn "knative.dev/func/pkg/functions"
	"knative.dev/func/pkg/scaffolding"
)

func main() {
	out := flag.String("o", "", "write the scaffolding to this `folder`")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "scaffold:", err)
		os.Exit(1)
	}
}

func run(out string, folders []string) error {
	if len(folders) == 0 || out != "" && len(folders) > 1 {
		return errors.New("want scaffold FOLDER... or scaffold -o OUT FOLDER")
	}
	var errs []error
	for _, folder := range folders {
		f, err := read(folder)
		if err == nil && out != "" {
			err = scaffolding.Write(out, f.Root, f.Runtime, f.Invoke, fn.EmbeddedTemplatesFS)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(folder, fn.FunctionFile), err))
		}
	}
	return errors.Join(errs...)
}

// read reads a func.yaml. Unlike func, it rejects unknown fields and duplicate
// values.
func read(folder string) (fn.Function, error) {
	text, err := os.ReadFile(filepath.Join(folder, fn.FunctionFile))
	if err != nil {
		return fn.Function{}, err
	}
	var strict fn.Function
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.SetStrict(true)
	if err := decoder.Decode(&strict); err != nil {
		return fn.Function{}, err
	}
	root, err := filepath.Abs(folder)
	if err != nil {
		return fn.Function{}, err
	}
	f, err := fn.NewFunction(root)
	if err != nil {
		return fn.Function{}, err
	}
	if last := fn.LastSpecVersion(); strict.SpecVersion != last {
		return fn.Function{}, fmt.Errorf("specVersion is %q: want %s", strict.SpecVersion, last)
	}
	if !f.Initialized() {
		return fn.Function{}, errors.New("name, runtime and created are required")
	}
	return f, f.Validate()
}
