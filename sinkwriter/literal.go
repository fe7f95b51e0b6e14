package sinkwriter

import (
	"strings"
)

// appendQuoted appends an element of an array, a field of a row, or a bound of a range, between
// quotes.
func appendQuoted(b []byte, text string) []byte {
	b = append(b, '"')
	for i := range len(text) {
		if c := text[i]; c == '"' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, text[i])
	}
	return append(b, '"')
}

// literalReader parses PostgreSQL's text form of arrays, rows and ranges.
type literalReader struct {
	text string
	at   int
}

func (r *literalReader) blanks() {
	for r.at < len(r.text) && strings.IndexByte(" \t\n\r\v\f", r.text[r.at]) >= 0 {
		r.at++
	}
}

// skip reads c if it is the next character.
func (r *literalReader) skip(c byte) bool {
	if r.at >= len(r.text) || r.text[r.at] != c {
		return false
	}
	r.at++
	return true
}

// element reads up to one of the characters in stops, outside of quotes.
func (r *literalReader) element(stops string) (text string, quoted, ok bool) {
	var b strings.Builder
	inside := false
	for ; r.at < len(r.text); r.at++ {
		c := r.text[r.at]
		switch {
		case c == '\\':
			if r.at++; r.at >= len(r.text) {
				return "", false, false
			}
			b.WriteByte(r.text[r.at])
			quoted = true
		case c == '"' && inside && r.at+1 < len(r.text) && r.text[r.at+1] == '"':
			r.at++
			b.WriteByte('"')
		case c == '"':
			inside = !inside
			quoted = true
		case !inside && strings.IndexByte(stops, c) >= 0:
			return b.String(), quoted, true
		default:
			b.WriteByte(c)
		}
	}
	return "", false, false
}

// parseArray parses the text of an array: elements are strings, nil, or slices of
// elements.
func parseArray(text string, delimiter byte) ([]any, bool) {
	r := literalReader{text: strings.Trim(text, " \t\n\r\v\f")}
	list, ok := r.array(delimiter, 0)
	return list, ok && r.at == len(r.text)
}

func (r *literalReader) array(delimiter byte, depth int) ([]any, bool) {
	if depth >= maxDimensions || !r.skip('{') {
		return nil, false
	}
	list := []any{}
	r.blanks()
	if r.skip('}') {
		return list, true
	}
	for {
		r.blanks()
		if r.at < len(r.text) && r.text[r.at] == '{' {
			inner, ok := r.array(delimiter, depth+1)
			if !ok {
				return nil, false
			}
			list = append(list, inner)
		} else {
			element, quoted, ok := r.element(string(delimiter) + "{}")
			if !ok {
				return nil, false
			}
			if !quoted {
				element = strings.TrimRight(element, " \t\n\r\v\f")
			}
			switch {
			case !quoted && element == "":
				return nil, false
			case !quoted && strings.EqualFold(element, "null"):
				list = append(list, nil)
			default:
				list = append(list, element)
			}
		}
		r.blanks()
		if r.skip('}') {
			return list, true
		}
		if !r.skip(delimiter) {
			return nil, false
		}
	}
}

// parseRecord parses the text of a row: fields are strings or nil.
func parseRecord(text string) ([]any, bool) {
	r := literalReader{text: strings.Trim(text, " \t\n\r\v\f")}
	if !r.skip('(') {
		return nil, false
	}
	var list []any
	for {
		field, quoted, ok := r.element(",)")
		if !ok {
			return nil, false
		}
		if field == "" && !quoted {
			list = append(list, nil)
		} else {
			list = append(list, field)
		}
		if r.skip(')') {
			return list, r.at == len(r.text)
		}
		r.skip(',')
	}
}

// parseHstore parses the text of an hstore: values are strings or nil. It returns false if a
// key occurs twice, because its value is ambiguous.
func parseHstore(text string) (map[string]any, bool) {
	const stops = "=>, \t\n\r\v\f"
	r := literalReader{text: text + ","} // so that the last pair ends like the others
	pairs := map[string]any{}
	for r.blanks(); r.at < len(text); r.blanks() {
		name, quoted, ok := r.element(stops)
		if !ok || name == "" && !quoted {
			return nil, false
		}
		r.blanks()
		if !r.skip('=') || !r.skip('>') {
			return nil, false
		}
		r.blanks()
		value, quoted, ok := r.element(stops)
		if _, twice := pairs[name]; !ok || twice || value == "" && !quoted {
			return nil, false
		}
		pairs[name] = value
		if !quoted && strings.EqualFold(value, "null") {
			pairs[name] = nil
		}
		r.blanks()
		if !r.skip(',') {
			return nil, false
		}
	}
	return pairs, true
}

// rangeLiteral is a range; a nil bound is unbounded.
type rangeLiteral struct {
	empty        bool
	from, to     byte // brackets
	lower, upper any
}

// rangeLiteral parses the text of a range.
func (r *literalReader) rangeLiteral() (rangeLiteral, bool) {
	r.blanks()
	if rest := r.text[r.at:]; len(rest) >= len("empty") && strings.EqualFold(rest[:len("empty")], "empty") {
		r.at += len("empty")
		return rangeLiteral{empty: true}, true
	}
	var l rangeLiteral
	if r.at >= len(r.text) || strings.IndexByte("[(", r.text[r.at]) < 0 {
		return l, false
	}
	l.from = r.text[r.at]
	r.at++
	var ok bool
	if l.lower, _, ok = r.bound(","); !ok {
		return l, false
	}
	l.upper, l.to, ok = r.bound("])")
	return l, ok
}

// bound parses a bound of a range, nil for none, and the character in ends after
// it.
func (r *literalReader) bound(ends string) (value any, end byte, ok bool) {
	text, quoted, ok := r.element(ends)
	if !ok {
		return nil, 0, false
	}
	if text != "" || quoted {
		value = text
	}
	end = r.text[r.at]
	r.at++
	return value, end, true
}

// parseRange parses the text of a range.
func parseRange(text string) (rangeLiteral, bool) {
	r := literalReader{text: text}
	l, ok := r.rangeLiteral()
	r.blanks()
	return l, ok && r.at == len(r.text)
}

// parseMultirange parses the text of a multirange.
func parseMultirange(text string) ([]rangeLiteral, bool) {
	r := literalReader{text: text}
	r.blanks()
	if !r.skip('{') {
		return nil, false
	}
	list := []rangeLiteral{}
	for r.blanks(); !r.skip('}'); r.blanks() {
		if len(list) > 0 {
			if !r.skip(',') {
				return nil, false
			}
		}
		l, ok := r.rangeLiteral()
		if !ok {
			return nil, false
		}
		list = append(list, l)
	}
	r.blanks()
	return list, r.at == len(r.text)
}
