// Command words is a ratchet on the words that house style avoids: "gives", "says",
// "what is …" as a noun, "somebody", and "who" as a subject. It counts them in the
// comments of the Go files and in the text of the Markdown files that git tracks, and
// fails if a file has more of them than baseline.txt allows.
//
//	make words                   compare with the baseline
//	make words ARGS=--update     lower the baseline to the current counts
//
// A file that the baseline lists may have as many as recorded there, any other file two
// of each kind. The allowances of listed files that no longer exist form a common pool
// for files that are not listed, so that moving, renaming, splitting and joining files
// needs no update. An update that would raise the count of a file is rejected.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// baselineFile is relative to the root of the repository.
const baselineFile = "hack/words/baseline.txt"

var errWorse = errors.New("more of the words that house style avoids than the baseline allows: rewrite the sentences above; hack/words/main.go explains the rule")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "words:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("words", flag.ContinueOnError)
	update := flags.Bool("update", false, "lower the baseline to the counts of today")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	root, err := git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	root = strings.TrimSpace(root)
	files, err := findAll(ctx, root)
	if err != nil {
		return err
	}
	path := filepath.Join(root, filepath.FromSlash(baselineFile))
	recorded, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read baseline: %w", err)
	}
	base, err := parseBaseline(recorded)
	if err != nil {
		return fmt.Errorf("read %s: %w", baselineFile, err)
	}

	counts := map[string]counts{}
	for file, found := range files {
		counts[file] = count(found)
	}
	worse := base.compare(counts)
	for _, w := range worse {
		if _, err := fmt.Fprintln(out, w); err != nil {
			return err
		}
		for _, f := range files[w.file] {
			if f.kind != w.kind {
				continue
			}
			if _, err := fmt.Fprintf(out, "  %s:%d: %s\n", w.file, f.line, f.text); err != nil {
				return err
			}
		}
	}
	if len(worse) > 0 {
		return errWorse
	}
	lowered := newBaseline(counts).format()
	switch {
	case bytes.Equal(lowered, recorded):
		return nil
	case *update:
		return os.WriteFile(path, lowered, 0o644)
	default:
		_, err := fmt.Fprintln(out, "words: the baseline allows more than the files contain; lower it with: make words ARGS=--update")
		return err
	}
}

// findAll returns what find returns for each Go and Markdown file that git tracks.
func findAll(ctx context.Context, root string) (map[string][]finding, error) {
	list, err := git(ctx, "-C", root, "ls-files", "-z", "--", "*.go", "*.md")
	if err != nil {
		return nil, err
	}
	files := map[string][]finding{}
	for file := range strings.SplitSeq(strings.TrimSuffix(list, "\x00"), "\x00") {
		body, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		if err != nil {
			return nil, err
		}
		files[file] = find(file, string(body))
	}
	return files, nil
}

func git(ctx context.Context, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
