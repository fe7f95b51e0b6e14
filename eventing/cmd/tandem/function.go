package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tandem-fn/tandem/eventing/program"
)

// functionFlags name the program of functions that a command asks.
type functionFlags struct{ folder, image string }

func (f *functionFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.folder, "function", "", "`folder` of the function, which is built with go; by default the current one, if it has a func.yaml")
	flags.StringVar(&f.image, "image", "", "`reference` of the function's image, as REGISTRY/NAME@sha256:…, which is run with docker, podman or nerdctl")
	_ = cmd.MarkFlagDirname("function")
}

func (f *functionFlags) validate() error {
	if f.folder != "" && f.image != "" {
		return errors.New("--function and --image: want one of them")
	}
	return nil
}

// open returns the program, which the caller closes. It is nil if no flag names one
// and the current folder is no function's.
func (f *functionFlags) open(ctx context.Context) (*program.Program, error) {
	if f.image != "" {
		return program.Image(f.image)
	}
	if f.folder == "" {
		if _, err := os.Stat("func.yaml"); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	folder, err := filepath.Abs(cmp.Or(f.folder, "."))
	if err != nil {
		return nil, fmt.Errorf("--function: %w", err)
	}
	return program.Build(ctx, folder)
}
