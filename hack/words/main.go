// Command words counts the words that house style avoids: "gives", "says", "what is …" as a noun,
// "somebody", and "who" as a subject. It reads the comments of the Go files and the text of the
// Markdown files that git tracks, and fails if a file has more than two of a kind, or if all
// comments or all pages together exceed the bounds of house style.
//
//	make words
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var errTooMany = errors.New("more of the words that house style avoids than allowed: rewrite the sentences above; hack/words/main.go explains the rule")

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
	lists := exceeding(files)
	for _, e := range lists {
		if _, err := fmt.Fprintln(out, e); err != nil {
			return err
		}
		for _, f := range files[e.file].found {
			if f.kind != e.kind {
				continue
			}
			if _, err := fmt.Fprintf(out, "  %s:%d: %s\n", e.file, f.line, f.text); err != nil {
				return err
			}
		}
	}
	tooMany := len(lists) > 0
	sums := totals(files)
	for _, extension := range slices.Sorted(maps.Keys(sums)) {
		for _, line := range sums[extension].above() {
			tooMany = true
			if _, err := fmt.Fprintf(out, "all *%s files: %s\n", extension, line); err != nil {
				return err
			}
		}
	}
	if tooMany {
		return errTooMany
	}
	return nil
}

// findAll returns what find returns for each Go and Markdown file that git tracks.
func findAll(ctx context.Context, root string) (map[string]text, error) {
	list, err := git(ctx, "-C", root, "ls-files", "-z", "--", "*.go", "*.md")
	if err != nil {
		return nil, err
	}
	files := map[string]text{}
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
