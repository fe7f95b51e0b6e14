package main

import (
	"bytes"
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
		found := find(test.file, string(body))
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

func TestAFileMayNotGetWorse(t *testing.T) {
	t.Parallel()

	base := baseline{
		"old.go":  {give: 5, say: 3},
		"lost.go": {give: 4, somebody: 7},
		"gone.md": {give: 1},
	}
	for _, test := range []struct {
		name  string
		files map[string]counts
		worse []string
	}{
		{"the same", map[string]counts{"old.go": {give: 5, say: 3}}, nil},
		{"two of another kind", map[string]counts{"old.go": {give: 5, somebody: 2}}, nil},
		{"one more", map[string]counts{"old.go": {give: 6, say: 3}}, []string{`old.go: "gives" 6 times, allowed: 5`}},
		{"three of another kind", map[string]counts{"old.go": {subjectWho: 3}}, []string{`old.go: "who as subject" 3 times, allowed: 2`}},
		{"a new file with two", map[string]counts{"new.go": {say: 2, headlessWhat: 2}}, nil},
		{"a new file with three", map[string]counts{"old.go": {}, "new.go": {say: 3}}, []string{`new.go: "says" 3 times, allowed: 2`}},
		{"a moved file", map[string]counts{"old.go": {}, "a/moved.go": {give: 4, somebody: 7}}, nil},
		{"a split file", map[string]counts{"old.go": {}, "a.go": {somebody: 5}, "b.go": {somebody: 6}}, nil},
		{"joined files", map[string]counts{"old.go": {}, "a.go": {give: 7}}, nil},
		{"joined files with one more", map[string]counts{"old.go": {}, "a.go": {give: 8}}, []string{`a.go: "gives" 8 times, allowed: 7`}},
		{"another file does not take from one that exists", map[string]counts{"old.go": {}, "lost.go": {}, "gone.md": {}, "a.go": {give: 4}}, []string{`a.go: "gives" 4 times, allowed: 2`}},
		{"a file of the baseline does not take from one that is lost", map[string]counts{"old.go": {give: 6}}, []string{`old.go: "gives" 6 times, allowed: 5`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			var worse []string
			for _, e := range base.compare(test.files) {
				worse = append(worse, e.String())
			}
			if diff := cmp.Diff(test.worse, worse); diff != "" {
				t.Errorf("worse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABaselineIsReadAsItIsWritten(t *testing.T) {
	t.Parallel()

	base := newBaseline(map[string]counts{"a b.go": {give: 3, subjectWho: 1}, "c.md": {say: 12}, "few.go": {give: 2, say: 2}})
	want := baseline{"a b.go": {give: 3, subjectWho: 1}, "c.md": {say: 12}}
	if diff := cmp.Diff(want, base); diff != "" {
		t.Errorf("baseline (-want +got):\n%s", diff)
	}
	read, err := parseBaseline(base.format())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(base, read); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	for _, text := range []string{"1\t2\tc.md\n", "1\t2\t3\t4\tx\tc.md\n"} {
		if _, err := parseBaseline([]byte(text)); err == nil {
			t.Errorf("%q is accepted as a baseline", text)
		}
	}
}

// A separate repository, because the command asks git for the files.
func TestAnUpdateLowersButNeverRaises(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := git(t.Context(), "-C", root, "add", name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := git(t.Context(), "init", "--quiet", root); err != nil {
		t.Fatal(err)
	}
	five := baseline{"a.md": {say: 5}}.format()
	write(baselineFile, string(five))

	write("a.md", strings.Repeat("It said so.\n", 6))
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--update"}, &out); err == nil {
		t.Error("an update accepts a file that got worse")
	}
	if want := "a.md:6: It said so."; !strings.Contains(out.String(), want) {
		t.Errorf("the report has no line %q:\n%s", want, &out)
	}
	if diff := cmp.Diff(string(five), readBaseline(t)); diff != "" {
		t.Errorf("a refused update writes (-before +after):\n%s", diff)
	}

	write("a.md", strings.Repeat("It said so.\n", 4))
	if err := run(t.Context(), nil, &out); err != nil {
		t.Errorf("a file that got better: %v", err)
	}
	if diff := cmp.Diff(string(five), readBaseline(t)); diff != "" {
		t.Errorf("a check writes (-before +after):\n%s", diff)
	}
	if err := run(t.Context(), []string{"--update"}, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(baseline{"a.md": {say: 4}}.format()), readBaseline(t)); diff != "" {
		t.Errorf("after the update (-want +got):\n%s", diff)
	}
}

func readBaseline(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(baselineFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
