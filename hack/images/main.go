// Command images builds the images of Tandem and pushes them, without Docker and
// without a base image. An image contains a static binary, the root certificates
// and nothing else, for amd64 and arm64, each with an SBOM (SPDX). The same source
// results in the same digests, on every machine.
//
// It is a module of its own, because no part of Tandem needs a registry at run
// time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
)

const help = `images builds Tandem's images and pushes them to a registry; Docker is not needed.

  make images REGISTRY=registry.example.com/team        # or, with more flags:
  go run -C hack/images . --registry registry.example.com/team

They are REGISTRY/source, /ingest, /tandem and /functions, an index of linux/amd64 and
linux/arm64 each. Credentials are those of docker login, podman login or a credential
helper. The digests of pushed images are printed, one per line.

  --registry HOST/NAME   the registry to push to; plain HTTP if HOST is localhost. Without it
                         images are built and measured, and not pushed
  --tag TAG              the tag, in addition to the digest (default dev)
  --only NAME,NAME       build only these images
  --functions PACKAGE    the main package of the image functions (default ./hack/serve)
  --platforms LIST       (default linux/amd64,linux/arm64)
  --kustomization FILE   write the digests to this file, for config/
`

// program is one image: a main package of Tandem.
type program struct{ name, pkg, title string }

// programs returns all programs; functions is the package of the functions.
func programs(functions string) []program {
	return []program{
		{"source", "./eventing/cmd/source", "Tandem's source: delivers the events of streams to a function"},
		{"ingest", "./eventing/cmd/ingest", "Tandem's ingest: accepts CloudEvents over HTTP and stores them in a stream"},
		{"tandem", "./eventing/cmd/tandem", "Tandem's tool: migrates, operates and verifies"},
		{"functions", functions, "Tandem's functions, as func builds them"},
	}
}

// options are the command line.
type options struct {
	root          string // the checkout
	registry, tag string
	kustomization string
	programs      []program
	platforms     []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opts, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(os.Stdout, help)
		return
	}
	if err == nil {
		err = run(ctx, opts, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	opts := options{root: filepath.Join("..", "..")}
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.registry, "registry", "", "")
	flags.StringVar(&opts.tag, "tag", "dev", "")
	flags.StringVar(&opts.kustomization, "kustomization", "", "")
	only := flags.String("only", "", "")
	functions := flags.String("functions", "./hack/serve", "")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q: want flags only; --help lists them", flags.Arg(0))
	}
	if opts.kustomization != "" && opts.registry == "" {
		return options{}, errors.New("--kustomization needs --registry: only pushed images can be deployed")
	}
	opts.platforms = strings.Split(*platforms, ",")
	for _, p := range opts.platforms {
		if !strings.HasPrefix(p, "linux/") || strings.Count(p, "/") != 1 {
			return options{}, fmt.Errorf("--platforms %q: want linux/ARCH, separated by commas", p)
		}
	}
	opts.programs = programs(*functions)
	if *only != "" {
		names := strings.Split(*only, ",")
		opts.programs = slices.DeleteFunc(opts.programs, func(p program) bool { return !slices.Contains(names, p.name) })
		if len(opts.programs) != len(names) {
			return options{}, fmt.Errorf("--only %s: want some of source, ingest, tandem, functions", *only)
		}
	}
	return opts, nil
}

// run builds and pushes the images, and writes the requested files.
func run(ctx context.Context, opts options, out io.Writer) error {
	var pushed []image
	for _, p := range opts.programs {
		built, err := build(ctx, opts, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		sizes := make([]string, len(built.platforms))
		for i, platform := range built.platforms {
			sizes[i] = fmt.Sprintf("%s %.1f MiB", platform.name, float64(platform.bytes)/(1<<20))
		}
		digest, err := built.index.Digest()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		ref := p.name + "@" + digest.String()
		if opts.registry != "" {
			repository, err := name.NewRepository(opts.registry + "/" + p.name)
			if err != nil {
				return fmt.Errorf("--registry %s: %w", opts.registry, err)
			}
			if err := push(ctx, repository, opts.tag, built); err != nil {
				return fmt.Errorf("push %s: %w", repository, err)
			}
			ref = repository.Digest(digest.String()).String()
			pushed = append(pushed, image{name: p.name, repository: opts.registry + "/" + p.name, digest: digest.String()})
		}
		if _, err := fmt.Fprintf(out, "%s  # %s\n", ref, strings.Join(sizes, ", ")); err != nil {
			return err
		}
	}
	if opts.kustomization == "" {
		return nil
	}
	return os.WriteFile(opts.kustomization, kustomization(pushed), 0o644)
}

// image is an image that was pushed.
type image struct{ name, repository, digest string }

// kustomization returns a component that replaces the image names in the
// manifests by digests.
func kustomization(images []image) []byte {
	var b strings.Builder
	b.WriteString("# The images to run. `make images REGISTRY=...` rewrites this file: commit it.\n" +
		"apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nimages:\n")
	for _, i := range images {
		fmt.Fprintf(&b, "  - name: tandem/%s\n    newName: %s\n    digest: %s\n", i.name, i.repository, i.digest)
	}
	return []byte(b.String())
}
