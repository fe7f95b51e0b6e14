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

// functionFlags are the flags that name the program of functions for a command.
type functionFlags struct {
	folder, image string

	// build is program.Build, unless tests share a program.
	build func(ctx context.Context, folder string) (*program.Program, error)
}

func (f *functionFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.folder, "function", "", "`folder` of the function, which is built with go; by default the current one, if it has a func.yaml")
	flags.StringVar(&f.image, "image", "", "`reference` of the function's image, for example REGISTRY/NAME@sha256:…, which is run with docker, podman or nerdctl")
	_ = cmd.MarkFlagDirname("function")
}

func (f *functionFlags) validate() error {
	if f.folder != "" && f.image != "" {
		return errors.New("--function and --image: want one of them")
	}
	return nil
}

// open returns the program; the caller closes it. It is nil if no flag names one and
// the current folder is not a function's.
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
	if f.build != nil {
		return f.build(ctx, folder)
	}
	return program.Build(ctx, folder)
}

// compute starts the program to compute effects. Close ends it and removes the program.
func (f *functionFlags) compute(ctx context.Context) (*computing, error) {
	p, err := f.open(ctx)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errors.New("no function: run this in the folder of a function, or set --function or --image")
	}
	computer, err := p.Compute(ctx)
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &computing{computer, p}, nil
}

// computing is a program that computes effects.
type computing struct {
	*program.Computer
	program *program.Program
}

// Close ends the program and removes it.
func (c *computing) Close() error { return errors.Join(c.Computer.Close(), c.program.Close()) }
