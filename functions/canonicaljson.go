package functions

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// appendJSON writes JSON text in canonical form: names sorted, no white space,
// each number and string in one spelling. It reports whether it is JSON, by the
// rules of [json.Valid]; if not, it gives b as it was.
//
// It is a scanner of its own since every output of every offer goes through it,
// those of losers too; encoding/json takes ten times as long.
func appendJSON(b, text []byte) ([]byte, bool) {
	s := scanner{text: text, out: append(b, 'j')}
	if s.value(0) && s.space() == len(text) {
		return s.out, true
	}
	return b, false
}

// scanner reads JSON and writes its canonical form. Each part is written behind
// its kind and length, so that none runs into the next.
type scanner struct {
	text []byte
	at   int
	out  []byte
}

// maxDepth is that of encoding/json.
const maxDepth = 10_000

func (s *scanner) space() int {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\t' || s.text[s.at] == '\r') {
		s.at++
	}
	return s.at
}

// next skips white space and gives the byte behind it, zero at the end.
func (s *scanner) next() byte {
	if s.space() == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

func (s *scanner) value(depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch c := s.next(); c {
	case '{':
		return s.object(depth)
	case '[':
		return s.array(depth)
	case '"':
		raw, ok := s.quoted()
		s.out = appendPart(append(s.out, 's'), raw)
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(word string) bool {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return false
	}
	s.at += len(word)
	s.out = append(s.out, word[0])
	return true
}

func (s *scanner) number() bool {
	from := s.at
	for s.at < len(s.text) {
		c := s.text[s.at]
		if (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
		s.at++
	}
	raw := s.text[from:s.at]
	if plainInteger(raw) {
		s.out = appendInteger(append(s.out, 'd'), raw)
		return true
	}
	if len(raw) == 0 || !json.Valid(raw) {
		return false
	}
	s.out = appendPart(append(s.out, 'd'), canonicalNumber(string(raw)))
	return true
}

// plainInteger reports whether raw is 0 or digits that do not end in one, which
// are their own canonical form but for the exponent.
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

// quoted reads a string and gives what it stands for.
func (s *scanner) quoted() ([]byte, bool) {
	from := s.at
	plain := true
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			raw := s.text[from:s.at]
			if plain {
				return raw[1 : len(raw)-1], true
			}
			var text string
			if json.Unmarshal(raw, &text) != nil {
				return nil, false
			}
			return []byte(text), true
		case c == '\\':
			plain = false
			s.at++
		case c < ' ':
			return nil, false
		case c >= 0x80:
			plain = false // may not be UTF-8: encoding/json mends it
		}
	}
	return nil, false
}

func (s *scanner) array(depth int) bool {
	s.at++
	count := len(s.out) + 1
	s.out = append(s.out, 'a', 0, 0, 0, 0)
	if s.next() == ']' {
		s.at++
		return true
	}
	for n := uint32(1); ; n++ {
		if !s.value(depth + 1) {
			return false
		}
		switch s.next() {
		case ',':
			s.at++
		case ']':
			s.at++
			binary.BigEndian.PutUint32(s.out[count:], n)
			return true
		default:
			return false
		}
	}
}

// member is where a name and its value lie in the output.
type member struct{ from, value, to int }

func (s *scanner) object(depth int) bool {
	s.at++
	count := len(s.out) + 1
	s.out = append(s.out, 'm', 0, 0, 0, 0)
	start := len(s.out)
	if s.next() == '}' {
		s.at++
		return true
	}
	var space [16]member
	members := space[:0]
	sorted := true
	for {
		if s.next() != '"' {
			return false
		}
		m := member{from: len(s.out)}
		name, ok := s.quoted()
		if !ok || s.next() != ':' {
			return false
		}
		s.at++
		s.out = appendPart(s.out, name)
		m.value = len(s.out)
		if !s.value(depth + 1) {
			return false
		}
		m.to = len(s.out)
		if n := len(members); n > 0 && s.compareNames(members[n-1], m) >= 0 {
			sorted = false
		}
		members = append(members, m)
		switch s.next() {
		case ',':
			s.at++
			continue
		case '}':
			s.at++
		default:
			return false
		}
		break
	}
	if !sorted {
		members = s.sort(start, members)
	}
	binary.BigEndian.PutUint32(s.out[count:], uint32(len(members)))
	return true
}

func (s *scanner) compareNames(a, b member) int {
	return bytes.Compare(s.out[a.from+4:a.value], s.out[b.from+4:b.value])
}

// sort puts the members in the order of their names. Of several of one name the
// last stays, as encoding/json has it.
func (s *scanner) sort(start int, members []member) []member {
	if len(members) <= 12 {
		for i := 1; i < len(members); i++ {
			for j := i; j > 0 && s.compareNames(members[j-1], members[j]) > 0; j-- {
				members[j-1], members[j] = members[j], members[j-1]
			}
		}
	} else {
		slices.SortStableFunc(members, s.compareNames)
	}
	// What is written stands behind itself for a moment, in the new order.
	end := len(s.out)
	kept := members[:0]
	for i, m := range members {
		if i+1 < len(members) && s.compareNames(m, members[i+1]) == 0 {
			continue
		}
		kept = append(kept, m)
		s.out = append(s.out, s.out[m.from:m.to]...)
	}
	n := copy(s.out[start:], s.out[end:])
	s.out = s.out[:start+n]
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
		return s // beyond anybody's numbers: as it is spelled
	}
	if strings.HasPrefix(exponent, "-") {
		power = -power
	}
	power -= int64(len(fraction))
	short := strings.TrimRight(digits, "0")
	power += int64(len(digits) - len(short))
	return sign + short + "e" + strconv.FormatInt(power, 10)
}
