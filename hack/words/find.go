package main

import (
	"path"
	"regexp"
	"strings"
)

// kind is a kind of word that house style avoids.
type kind int

const (
	give kind = iota
	say
	headlessWhat
	somebody
	subjectWho
	kinds // number of kinds
)

// String returns the kind's name in reports.
func (k kind) String() string {
	return [kinds]string{"gives", "says", "headless what", "somebody", "who as subject"}[k]
}

// The definitions, on text in lower case.
var (
	word       = regexp.MustCompile(`[a-z']+`)
	wordKinds  = map[string]kind{"gives": give, "give": give, "gave": give, "says": say, "said": say, "whoever": somebody, "somebody": somebody, "nobody": somebody, "everybody": somebody}
	whatPhrase = regexp.MustCompile(`\bwhat (?:is|was|has|it|are|were|comes|came|waits)\b`)
	whoPhrase  = regexp.MustCompile(`(?:^|[.;:]\s+|\n\s*)(who)\b`)

	codeBlock = regexp.MustCompile("(?s)```.*?```")
	heading   = regexp.MustCompile(`(?m)^#.*$`)
	codeSpan  = regexp.MustCompile("`[^`\n]*`")
	notBreak  = regexp.MustCompile(`[^\n]+`)
)

// finding is one occurrence.
type finding struct {
	kind kind
	line int
	text string // the line, without surrounding white space
}

// text is the prose of a file.
type text struct {
	words int
	found []finding
}

// find returns the occurrences in a file and the number of its words: of the comments of a Go
// file, and of the text of a Markdown file without headings and code. A comment begins at the
// first double slash of a line, even inside a string, because that is simple and exact enough.
func find(file, body string) (t text) {
	all := prose(file, body)
	low := strings.ToLower(all)
	if len(low) != len(all) {
		all = low // so that an offset is valid in both
	}
	add := func(k kind, offset int) {
		begin := strings.LastIndexByte(all[:offset], '\n') + 1
		line, _, _ := strings.Cut(all[begin:], "\n")
		t.found = append(t.found, finding{kind: k, line: strings.Count(all[:offset], "\n") + 1, text: strings.TrimSpace(line)})
	}
	for _, at := range word.FindAllStringIndex(low, -1) {
		t.words++
		if k, ok := wordKinds[low[at[0]:at[1]]]; ok {
			add(k, at[0])
		}
	}
	for _, at := range whatPhrase.FindAllStringIndex(low, -1) {
		add(headlessWhat, at[0])
	}
	for _, at := range whoPhrase.FindAllStringSubmatchIndex(low, -1) {
		add(subjectWho, at[2])
	}
	return t
}

// prose returns the part of a file that is searched, with unchanged line numbers.
func prose(file, body string) string {
	if path.Ext(file) == ".md" {
		body = codeBlock.ReplaceAllStringFunc(body, func(block string) string {
			return notBreak.ReplaceAllString(block, " ")
		})
		return codeSpan.ReplaceAllString(heading.ReplaceAllString(body, " "), " ")
	}
	lines := strings.Split(body, "\n")
	for i, line := range lines {
		_, lines[i], _ = strings.Cut(line, "//")
	}
	return strings.Join(lines, "\n")
}
