package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// allowed is how many of each kind are allowed in a file that the baseline does not
// list.
const allowed = 2

const baselineHeader = `# How many of the words that house style avoids each file has, of the files with more
# than two of a kind. Written by: make words ARGS=--update
`

// counts are how many of each kind a file has.
type counts [kinds]int

func count(found []finding) counts {
	var c counts
	for _, f := range found {
		c[f.kind]++
	}
	return c
}

// baseline holds, by file, the counts of the files that had more than allowed of a kind.
type baseline map[string]counts

// newBaseline returns the baseline for the current counts.
func newBaseline(files map[string]counts) baseline {
	b := baseline{}
	for file, c := range files {
		if slices.Max(c[:]) > allowed {
			b[file] = c
		}
	}
	return b
}

// excess is a file with more of a kind than allowed.
type excess struct {
	file     string
	kind     kind
	has, may int
}

func (e excess) String() string {
	return fmt.Sprintf("%s: %q %d times, allowed: %d", e.file, e.kind, e.has, e.may)
}

// compare returns the files with more than allowed, sorted by name.
func (b baseline) compare(files map[string]counts) []excess {
	var pool counts // allowances of files that no longer exist
	for file, c := range b {
		if _, exists := files[file]; exists {
			continue
		}
		for k, n := range c {
			pool[k] += n
		}
	}
	var worse []excess
	for _, file := range slices.Sorted(maps.Keys(files)) {
		recorded, listed := b[file]
		for k, has := range files[file] {
			may := max(allowed, recorded[k])
			if !listed && has > may {
				taken := min(has-may, pool[k])
				pool[k] -= taken
				may += taken
			}
			if has > may {
				worse = append(worse, excess{file: file, kind: kind(k), has: has, may: may})
			}
		}
	}
	return worse
}

// format returns the baseline as parseBaseline reads it.
func (b baseline) format() []byte {
	var out bytes.Buffer
	out.WriteString(baselineHeader + "#")
	for k := range kinds {
		fmt.Fprintf(&out, " %s,", k)
	}
	out.WriteString(" file\n")
	for _, file := range slices.Sorted(maps.Keys(b)) {
		for _, n := range b[file] {
			fmt.Fprintf(&out, "%d\t", n)
		}
		out.WriteString(file + "\n")
	}
	return out.Bytes()
}

func parseBaseline(text []byte) (baseline, error) {
	b := baseline{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != int(kinds)+1 {
			return nil, fmt.Errorf("line %q: want %d numbers and a file, separated by tabs", line, kinds)
		}
		var c counts
		for k := range c {
			if _, err := fmt.Sscanf(fields[k], "%d", &c[k]); err != nil {
				return nil, fmt.Errorf("line %q: number %q: %w", line, fields[k], err)
			}
		}
		b[fields[kinds]] = c
	}
	return b, nil
}
