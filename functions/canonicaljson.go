package functions

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

// appendJSON appends JSON text in canonical form: names sorted, no white space,
// one spelling of each number and string. It reports whether text is JSON, by the
// rules of [json.Valid]; if not, it returns b unchanged.
func appendJSON(b, text []byte) ([]byte, bool) {
	w := canonicalWriter{in: jsonscan.New(text), out: append(b, 'j')}
	w.value()
	if w.in.Done() {
		return w.out, true
	}
	return b, false
}

// canonicalWriter writes the canonical form of the JSON that it reads. Each part is
// preceded by its kind and length, so that the boundaries between parts are
// unambiguous.
type canonicalWriter struct {
	in  jsonscan.Scanner
	out []byte
}

func (w *canonicalWriter) value() {
	switch w.in.Peek() {
	case '{':
		w.object()
	case '[':
		w.array()
	case '"':
		w.out = appendPart(append(w.out, 's'), unquote(w.in.String()))
	case 't', 'f', 'n':
		if word := w.in.Literal(); len(word) > 0 {
			w.out = append(w.out, word[0])
		}
	default:
		w.number(w.in.Number())
	}
}

func (w *canonicalWriter) number(raw []byte) {
	if plainInteger(raw) {
		w.out = appendInteger(append(w.out, 'd'), raw)
		return
	}
	w.out = appendPart(append(w.out, 'd'), canonicalNumber(string(raw)))
}

// plainInteger reports whether raw is 0 or digits that do not end in 0. These
// are their own canonical form, except for the exponent.
func plainInteger(raw []byte) bool {
	if len(raw) == 0 || raw[0] == '0' || raw[len(raw)-1] == '0' {
		return false
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func appendInteger(b, raw []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(raw)+2))
	return append(append(b, raw...), 'e', '0')
}

// unquote returns the value of a quoted string.
func unquote(quoted []byte, plain bool) []byte {
	if plain {
		return quoted[1 : len(quoted)-1]
	}
	if len(quoted) > 0 && bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return quoted[1 : len(quoted)-1]
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return nil // there was a syntax error
	}
	return []byte(text)
}

func (w *canonicalWriter) array() {
	count := len(w.out) + 1
	w.out = append(w.out, 'a', 0, 0, 0, 0)
	n := uint32(0)
	for more := w.in.More(true, ']'); more; more = w.in.More(false, ']') {
		w.value()
		n++
	}
	binary.BigEndian.PutUint32(w.out[count:], n)
}

// member holds the positions of a name and its value in the output.
type member struct{ from, value, to int }

func (w *canonicalWriter) object() {
	count := len(w.out) + 1
	w.out = append(w.out, 'm', 0, 0, 0, 0)
	start := len(w.out)
	var space [16]member
	members := space[:0]
	sorted := true
	for more := w.in.More(true, '}'); more; more = w.in.More(false, '}') {
		m := member{from: len(w.out)}
		w.out = appendPart(w.out, unquote(w.in.Name()))
		m.value = len(w.out)
		w.value()
		m.to = len(w.out)
		if n := len(members); n > 0 && w.compareNames(members[n-1], m) >= 0 {
			sorted = false
		}
		members = append(members, m)
	}
	if !sorted {
		members = w.sort(start, members)
	}
	binary.BigEndian.PutUint32(w.out[count:], uint32(len(members)))
}

func (w *canonicalWriter) compareNames(a, b member) int {
	return bytes.Compare(w.out[a.from+4:a.value], w.out[b.from+4:b.value])
}

// sort sorts the members by name. Of several with one name the last is kept, as
// in encoding/json.
func (w *canonicalWriter) sort(start int, members []member) []member {
	if len(members) <= 12 {
		for i := 1; i < len(members); i++ {
			for j := i; j > 0 && w.compareNames(members[j-1], members[j]) > 0; j-- {
				members[j-1], members[j] = members[j], members[j-1]
			}
		}
	} else {
		slices.SortStableFunc(members, w.compareNames)
	}
	// The members are first copied behind themselves, in the new order.
	end := len(w.out)
	kept := members[:0]
	for i, m := range members {
		if i+1 < len(members) && w.compareNames(m, members[i+1]) == 0 {
			continue
		}
		kept = append(kept, m)
		w.out = append(w.out, w.out[m.from:m.to]...)
	}
	n := copy(w.out[start:], w.out[end:])
	w.out = w.out[:start+n]
	return kept
}

// canonicalNumber writes a JSON number as its significant digits and a power of
// ten, exactly: 100, 1e2 and 100.0 are the same, and no precision is lost.
func canonicalNumber(s string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	sign := ""
	if rest, ok := strings.CutPrefix(mantissa, "-"); ok {
		sign, mantissa = "-", rest
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	power, err := strconv.ParseInt("0"+strings.TrimLeft(exponent, "+-"), 10, 32)
	if err != nil {
		return s // beyond any realistic number: unchanged
	}
	if strings.HasPrefix(exponent, "-") {
		power = -power
	}
	power -= int64(len(fraction))
	short := strings.TrimRight(digits, "0")
	power += int64(len(digits) - len(short))
	return sign + short + "e" + strconv.FormatInt(power, 10)
}
