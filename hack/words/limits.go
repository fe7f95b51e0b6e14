package main

import (
	"fmt"
	"maps"
	"path"
	"slices"
)

// allowed is how many of each kind a file may have.
const allowed = 2

// bounds are how many of each kind there may be in 10,000 words, of all comments together, and of
// all pages together.
var bounds = counts{give: 1, say: 1, headlessWhat: 2, somebody: 1, subjectWho: 2}

// counts are how many there are of each kind.
type counts [kinds]int

func count(found []finding) counts {
	var c counts
	for _, f := range found {
		c[f.kind]++
	}
	return c
}

// excess is a file that has more of a kind than it may.
type excess struct {
	file string
	kind kind
	has  int
}

func (e excess) String() string {
	return fmt.Sprintf("%s: %q %d times, allowed: %d", e.file, e.kind, e.has, allowed)
}

// exceeding returns which files have more than they may, in the order of their names.
func exceeding(files map[string]text) []excess {
	var list []excess
	for _, file := range slices.Sorted(maps.Keys(files)) {
		for k, has := range count(files[file].found) {
			if has > allowed {
				list = append(list, excess{file: file, kind: kind(k), has: has})
			}
		}
	}
	return list
}

// total is the sum of all files of one extension.
type total struct {
	words int
	counts
}

func totals(files map[string]text) map[string]total {
	sums := map[string]total{}
	for file, t := range files {
		sum := sums[path.Ext(file)]
		sum.words += t.words
		for k, n := range count(t.found) {
			sum.counts[k] += n
		}
		sums[path.Ext(file)] = sum
	}
	return sums
}

// above returns the kinds of which there are more than bounds allow.
func (t total) above() (list []string) {
	for k, n := range t.counts {
		if rate := 1e4 * float64(n) / float64(max(t.words, 1)); rate > float64(bounds[k]) {
			list = append(list, fmt.Sprintf("%q %.1f times in 10,000 words, allowed: %d", kind(k), rate, bounds[k]))
		}
	}
	return list
}
