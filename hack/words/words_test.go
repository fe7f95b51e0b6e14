package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWordsAreCountedInCommentsAndText(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		sample, file string
		want         counts
		lines        map[kind][]int
	}{
		{
			sample: "sample.go.txt", file: "sample.go",
			want:  counts{give: 2, say: 1, headlessWhat: 5, somebody: 2, subjectWho: 2},
			lines: map[kind][]int{headlessWhat: {6, 6, 6, 6, 8}, subjectWho: {3, 4}, somebody: {7, 10}},
		},
		{
			sample: "sample.md.txt", file: "sample.md",
			want:  counts{say: 1, headlessWhat: 2, somebody: 1, subjectWho: 3},
			lines: map[kind][]int{headlessWhat: {9, 9}, subjectWho: {3, 3, 9}, somebody: {8}},
		},
	} {
		body, err := os.ReadFile(filepath.Join("testdata", test.sample))
		if err != nil {
			t.Fatal(err)
		}
		found := find(test.file, string(body)).found
		if diff := cmp.Diff(test.want, count(found)); diff != "" {
			t.Errorf("%s: counts (-want +got):\n%s", test.sample, diff)
		}
		lines := map[kind][]int{}
		for _, f := range found {
			if test.lines[f.kind] != nil {
				lines[f.kind] = append(lines[f.kind], f.line)
			}
		}
		if diff := cmp.Diff(test.lines, lines); diff != "" {
			t.Errorf("%s: lines (-want +got):\n%s", test.sample, diff)
		}
	}
}

// slashes begins a comment, and does not begin one in this file.
const slashes = "/" + "/ "

func TestAFileMayHaveTwoOfAKind(t *testing.T) {
	t.Parallel()

	files := map[string]text{
		"two.go":   find("two.go", strings.Repeat(slashes+"It said so, and gives it.\n", 2)),
		"three.go": find("three.go", strings.Repeat(slashes+"It said so.\n", 3)),
		"three.md": find("three.md", strings.Repeat("Somebody.\n", 3)),
	}
	var lists []string
	for _, e := range exceeding(files) {
		lists = append(lists, e.String())
	}
	if diff := cmp.Diff([]string{`three.go: "says" 3 times, allowed: 2`, `three.md: "somebody" 3 times, allowed: 2`}, lists); diff != "" {
		t.Errorf("files with too many (-want +got):\n%s", diff)
	}
}

func TestAllCommentsTogetherHaveABound(t *testing.T) {
	t.Parallel()

	long := slashes + strings.Repeat("word ", 5000) + "\n"
	files := map[string]text{
		"a.go": find("a.go", long+slashes+"It said so.\n"+slashes+"What is there is there.\n"),
		"b.go": find("b.go", long+slashes+"It says so.\n"+slashes+"What is there is there.\n"),
		"c.md": find("c.md", "It gives few words.\n"),
	}
	sums := totals(files)
	if diff := cmp.Diff([]string{`"says" 2.0 times in 10,000 words, allowed: 1`}, sums[".go"].above()); diff != "" {
		t.Errorf("comments (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{`"gives" 2500.0 times in 10,000 words, allowed: 1`}, sums[".md"].above()); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// A separate repository, because the command asks git for the files.
func TestTheReportNamesTheLine(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	if _, err := git(t.Context(), "init", "--quiet", root); err != nil {
		t.Fatal(err)
	}
	check := func(text string) (report string, err error) {
		t.Helper()
		if err := os.WriteFile("a.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := git(t.Context(), "-C", root, "add", "a.md"); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = run(t.Context(), nil, &out)
		return out.String(), err
	}
	report, err := check(strings.Repeat("It said so.\n", 3))
	if want := "a.md:3: It said so."; !errors.Is(err, errTooMany) || !strings.Contains(report, want) {
		t.Errorf("error %v, and the report has no line %q:\n%s", err, want, report)
	}
	if report, err := check(strings.Repeat("It is so.\n", 3)); err != nil || report != "" {
		t.Errorf("error %v, report %q", err, report)
	}
}
