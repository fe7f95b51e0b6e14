// Package jsonscan reads JSON text value by value, without decoding the values. It
// accepts what [encoding/json.Valid] accepts.
//
// Every event and every output passes through it. encoding/json, which decodes the
// values, takes ten times as long.
package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

// maxDepth is the nesting that encoding/json accepts.
const maxDepth = 10_000

// Scanner reads a text from its beginning. After a syntax error its position is
// the end of the text, so that loops over [Scanner.More] end; [Scanner.Done]
// reports false.
type Scanner struct {
	text   []byte
	at     int
	depth  int
	failed bool
}

// New returns a Scanner at the beginning of text.
func New(text []byte) Scanner { return Scanner{text: text} }

// Valid reports whether text is one JSON value.
func Valid(text []byte) bool {
	s := New(text)
	s.Value()
	return s.Done()
}

// Done reports whether only white space follows and no syntax error was found.
func (s *Scanner) Done() bool { return s.Peek() == 0 && s.at == len(s.text) && !s.failed }

// Failed reports whether a syntax error was found.
func (s *Scanner) Failed() bool { return s.failed }

// fail records a syntax error.
func (s *Scanner) fail() { s.at, s.failed = len(s.text), true }

// Peek skips white space and returns the byte that follows, which determines the
// kind of a value. It returns 0 at the end of the text.
func (s *Scanner) Peek() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

// More reports whether another element of an array or object follows. If first is
// true, s is at the opening bracket and More advances past it; otherwise More advances
// past the comma. At the end of the array or object it advances past the closing
// bracket, which is end.
func (s *Scanner) More(first bool, end byte) bool {
	if first {
		if s.depth++; s.depth > maxDepth {
			s.fail()
			return false
		}
		s.at++
		if s.Peek() != end {
			return !s.failed
		}
	}
	switch c := s.Peek(); {
	case c == end:
		s.depth--
		s.at++
	case c == ',' && !first:
		s.at++
		return true
	default:
		s.fail()
	}
	return false
}

// Name returns the name of the next member of an object, in quotation marks, and
// advances past the colon. Plain is that of [Scanner.String].
func (s *Scanner) Name() (name []byte, plain bool) {
	if s.Peek() != '"' {
		s.fail()
		return nil, false
	}
	name, plain = s.String()
	if s.Peek() != ':' {
		s.fail()
		return nil, false
	}
	s.at++
	return name, plain
}

// Value returns the text of the next value, of any kind.
func (s *Scanner) Value() []byte {
	c := s.Peek()
	from := s.at
	switch c {
	case '{':
		for more := s.More(true, '}'); more; more = s.More(false, '}') {
			s.Name()
			s.Value()
		}
	case '[':
		for more := s.More(true, ']'); more; more = s.More(false, ']') {
			s.Value()
		}
	case '"':
		s.String()
	case 't', 'f', 'n':
		s.Literal()
	default:
		s.Number()
	}
	if s.failed {
		return nil
	}
	return s.text[from:s.at]
}

// Literal returns true, false or null.
func (s *Scanner) Literal() []byte {
	for _, word := range [...]string{"true", "false", "null"} {
		if to := s.at + len(word); to <= len(s.text) && string(s.text[s.at:to]) == word {
			s.at = to
			return s.text[to-len(word) : to]
		}
	}
	s.fail()
	return nil
}

// Number returns the number at the position of s.
func (s *Scanner) Number() []byte {
	from := s.at
	if s.at < len(s.text) && s.text[s.at] == '-' {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '0' {
		s.at++
	} else {
		s.digits()
	}
	if s.at < len(s.text) && s.text[s.at] == '.' {
		s.at++
		s.digits()
	}
	if s.at < len(s.text) && s.text[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.text) && (s.text[s.at] == '+' || s.text[s.at] == '-') {
			s.at++
		}
		s.digits()
	}
	if s.failed {
		return nil
	}
	return s.text[from:s.at]
}

// digits advances past at least one decimal digit.
func (s *Scanner) digits() {
	from := s.at
	for s.at < len(s.text) && s.text[s.at]-'0' <= 9 {
		s.at++
	}
	if s.at == from {
		s.fail()
	}
}

// String returns the string at the position of s, in quotation marks. Plain
// reports whether its value is the text between them: it has no escapes and is
// ASCII.
func (s *Scanner) String() (quoted []byte, plain bool) {
	from := s.at
	plain = true
	for s.at++; s.at < len(s.text); s.at++ {
		for s.at+8 <= len(s.text) {
			special := specialBytes(binary.LittleEndian.Uint64(s.text[s.at:]))
			if special != 0 {
				s.at += bits.TrailingZeros64(special) / 8
				break
			}
			s.at += 8
		}
		if s.at == len(s.text) {
			break
		}
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return s.text[from:s.at], plain
		case c == '\\':
			plain = false
			s.escape()
		case c < ' ':
			s.fail()
		case c >= 0x80:
			plain = false
			for s.at+1 < len(s.text) && s.text[s.at+1] >= 0x80 {
				s.at++
			}
		}
	}
	s.fail()
	return nil, false
}

// specialBytes returns a word whose lowest set bit is the highest bit of the first byte of
// text, read as little-endian, that is a quotation mark, a backslash, a control character or
// not ASCII. It returns 0 if there is none.
//
// For a byte below 0x80 the highest bit of a difference is set if the byte is less than the
// subtrahend, or if there was a borrow, which needs such a byte before it.
func specialBytes(text uint64) uint64 {
	const ones = 0x0101010101010101
	quote := text ^ ones*'"'
	backslash := text ^ ones*'\\'
	return (text | (quote - ones) | (backslash - ones) | (text - ones*' ')) & (ones * 0x80)
}

// escape advances past an escape sequence except for its last byte.
func (s *Scanner) escape() {
	s.at++
	if s.at >= len(s.text) {
		return // the string does not end
	}
	switch s.text[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return
	case 'u':
		for range 4 {
			if s.at++; s.at >= len(s.text) || !hexDigit(s.text[s.at]) {
				s.fail()
				return
			}
		}
		return
	}
	s.fail()
}

func hexDigit(c byte) bool {
	return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'f'
}
