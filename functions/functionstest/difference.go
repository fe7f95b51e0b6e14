package functionstest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// difference is the first place in which two records differ.
type difference struct {
	where         string
	first, second string
}

const nothing = "(nothing)"

// differenceOf returns the first difference of two records that are not equal.
func differenceOf(a, b record) difference {
	switch {
	case a.Broken != b.Broken:
		return difference{"error", orNothing(a.Broken), orNothing(b.Broken)}
	case a.Rejected != b.Rejected:
		return difference{"rejection", orNothing(a.Rejected), orNothing(b.Rejected)}
	}
	for i := range max(len(a.Parts), len(b.Parts)) {
		name := "write or output " + strconv.Itoa(i)
		switch {
		case i >= len(a.Parts):
			return difference{name, nothing, b.Parts[i].Head}
		case i >= len(b.Parts):
			return difference{name, a.Parts[i].Head, nothing}
		case a.Parts[i].Head != b.Parts[i].Head:
			return difference{name, a.Parts[i].Head, b.Parts[i].Head}
		}
		name = fmt.Sprintf("%s (%s), ", name, a.Parts[i].Head)
		x, y := a.Parts[i].Fields, b.Parts[i].Fields
		for k := range max(len(x), len(y)) {
			switch {
			case k >= len(x):
				return difference{name + y[k].Name, nothing, y[k].Value}
			case k >= len(y):
				return difference{name + x[k].Name, x[k].Value, nothing}
			case x[k].Name != y[k].Name:
				return difference{name + "field " + strconv.Itoa(k), x[k].Name + " = " + x[k].Value, y[k].Name + " = " + y[k].Value}
			case x[k].Value != y[k].Value:
				d := differText(x[k].Value, y[k].Value)
				d.where = name + x[k].Name + d.where
				return d
			}
		}
	}
	// Their text is the same.
	return difference{"canonical form", fmt.Sprintf("%x", a.Canonical), fmt.Sprintf("%x", b.Canonical)}
}

func orNothing(s string) string {
	if s == "" {
		return nothing
	}
	return s
}

// differText compares values that are JSON in detail.
func differText(a, b string) difference {
	x, okX := decode(a)
	y, okY := decode(b)
	if okX && okY {
		if d, ok := differJSON("", x, y); ok {
			return d
		}
	}
	return difference{"", a, b}
}

func decode(text string) (value any, ok bool) {
	if !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "[") {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return value, d.Decode(&value) == nil
}

func differJSON(where string, a, b any) (difference, bool) {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok {
			break
		}
		names := slices.AppendSeq(slices.Collect(maps.Keys(x)), maps.Keys(y))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			inX, okX := x[name]
			inY, okY := y[name]
			at := where + "." + name
			if !okX || !okY {
				return difference{at, jsonText(inX, okX), jsonText(inY, okY)}, true
			}
			if d, ok := differJSON(at, inX, inY); ok {
				return d, true
			}
		}
		return difference{}, false
	case []any:
		y, ok := b.([]any)
		if !ok {
			break
		}
		for i := range max(len(x), len(y)) {
			at := where + "[" + strconv.Itoa(i) + "]"
			switch {
			case i >= len(x):
				return difference{at, nothing, jsonText(y[i], true)}, true
			case i >= len(y):
				return difference{at, jsonText(x[i], true), nothing}, true
			}
			if d, ok := differJSON(at, x[i], y[i]); ok {
				return d, true
			}
		}
		return difference{}, false
	}
	x, y := jsonText(a, true), jsonText(b, true)
	return difference{where, x, y}, x != y
}

func jsonText(v any, there bool) string {
	if !there {
		return nothing
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(text.String())
}

// texts shortens two values to the part in which they begin to differ.
func (d difference) texts() (first, second string) {
	const before, limit = 40, 160
	same := 0
	for same < min(len(d.first), len(d.second)) && d.first[same] == d.second[same] {
		same++
	}
	from := 0
	if max(len(d.first), len(d.second)) > limit && same > before {
		from = same - before
	}
	cut := func(s string) string {
		begin := ""
		if from > 0 {
			s, begin = s[min(from, len(s)):], "…"
		}
		if len(s) > limit {
			s = s[:limit] + "…"
		}
		return begin + strings.ToValidUTF8(strings.ReplaceAll(s, "\n", "\\n"), "\ufffd")
	}
	return cut(d.first), cut(d.second)
}

// permuted reports whether two records consist of the same elements in another
// order: parts, or pieces of the value in which they first differ.
func permuted(a, b record) bool {
	if a.Broken != "" || a.Rejected != "" || b.Broken != "" || b.Rejected != "" {
		d := differenceOf(a, b)
		return sameBytes(d.first, d.second)
	}
	return len(a.Parts) == len(b.Parts) && sameBytes(a.flat(), b.flat())
}

// flat returns everything that can differ independently. The id of an output is
// excluded, because it depends on its position.
func (r record) flat() string {
	var all []string
	for _, p := range r.Parts {
		output := strings.HasPrefix(p.Head, "emit ")
		all = append(all, p.Head)
		for _, f := range p.Fields {
			if !output || f.Name != "id" {
				all = append(all, f.Name+f.Value)
			}
		}
	}
	return strings.Join(all, "")
}

func sameBytes(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return bytes.Equal(x, y)
}
