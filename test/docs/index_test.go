package docs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// link matches the target of a Markdown link or image.
var link = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// code matches text that may look like a link but is not one.
var code = regexp.MustCompile("(?ms)^```.*?^```$|`[^`\n]*`")

func TestEveryPageIsInTheIndex(t *testing.T) {
	t.Parallel()

	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	linked := links(t, filepath.Join(root, "docs", "README.md"))
	for _, page := range pages {
		if name := filepath.Base(page); name != "README.md" && !slices.Contains(linked, name) {
			t.Errorf("docs/README.md does not link docs/%s", name)
		}
	}
	if len(pages) < 2 {
		t.Errorf("docs has %d pages: nothing was compared", len(pages))
	}
}

func TestEveryPageStatesWhatItsReaderCanDo(t *testing.T) {
	t.Parallel()

	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		name := filepath.Base(page)
		text := read(t, page)
		title, body, _ := strings.Cut(text, "\n")
		switch {
		case name == "README.md":
		case !strings.HasPrefix(title, "# "):
			t.Errorf("docs/%s does not begin with a title", name)
		case !strings.HasPrefix(strings.TrimSpace(body), "After this page you "):
			t.Errorf("docs/%s does not begin with \"After this page you …\"", name)
		}
	}
}

// TestLinksLead looks up the files and headings that pages of the repository link to.
func TestLinksLead(t *testing.T) {
	t.Parallel()

	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "config/README.md"} {
		pages = append(pages, filepath.Join(root, filepath.FromSlash(name)))
	}
	for _, page := range pages {
		for _, target := range links(t, page) {
			if strings.Contains(target, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(target, "#")
			file := page
			if path != "" {
				file = filepath.Join(filepath.Dir(page), filepath.FromSlash(path))
			}
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s links %s, which does not exist", page, target)
			} else if anchor != "" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s links %s, and %s has no such heading", page, target, file)
			}
		}
	}
}

// links returns the targets of the links of a page.
func links(t *testing.T, page string) []string {
	t.Helper()

	var targets []string
	for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(read(t, page), "`"), -1) {
		targets = append(targets, match[1])
	}
	return targets
}

// notInAnchor matches what GitHub leaves out of the anchor of a heading.
var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(t *testing.T, page string) []string {
	t.Helper()

	var all []string
	for line := range strings.Lines(read(t, page)) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			name := notInAnchor.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			all = append(all, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
