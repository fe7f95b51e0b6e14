package cloudevent

// scanner walks through text that is known to be valid JSON, and so need not
// look for errors. It tells values apart and leaves them as they are.
type scanner struct {
	text []byte
	i    int
}

func (s *scanner) space() {
	for s.i < len(s.text) {
		switch s.text[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

// next steps into an object or array, or over the comma to what comes next in
// it; ok is false at its end, which it steps over.
func (s *scanner) next(first bool) (ok bool) {
	if first {
		s.i++ // the bracket
	}
	s.space()
	switch s.text[s.i] {
	case '}', ']':
		s.i++
		return false
	case ',':
		s.i++
		s.space()
	}
	return true
}

// member gives the next member of an object; first says that s stands at the
// object's brace.
func (s *scanner) member(first bool) (m member, ok bool) {
	if !s.next(first) {
		return member{}, false
	}
	m.name = memberName(s.value())
	s.space()
	s.i++ // the colon
	s.space()
	m.value = s.value()
	return m, true
}

// memberName decodes a member's name. The usual ones need no new string.
func memberName(name []byte) string {
	switch string(name) {
	case `"specversion"`:
		return "specversion"
	case `"id"`:
		return "id"
	case `"source"`:
		return "source"
	case `"type"`:
		return "type"
	case `"subject"`:
		return "subject"
	case `"time"`:
		return "time"
	case `"datacontenttype"`:
		return "datacontenttype"
	case `"data"`:
		return "data"
	}
	text, err := stringValue(name)
	if err != nil {
		return string(name) // no attribute's name; refused as such
	}
	return text
}

// value gives the value at which s stands and steps over it.
func (s *scanner) value() []byte {
	start := s.i
	switch s.text[s.i] {
	case '"':
		s.string()
	case '{', '[':
		depth := 0
		for {
			switch s.text[s.i] {
			case '"':
				s.string()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			s.i++
			if depth == 0 {
				return s.text[start:s.i]
			}
		}
	default:
		for s.i < len(s.text) {
			switch s.text[s.i] {
			case ',', '}', ']', ' ', '\t', '\r', '\n':
				return s.text[start:s.i]
			}
			s.i++
		}
	}
	return s.text[start:s.i]
}

// string steps over the string at which s stands.
func (s *scanner) string() {
	for s.i++; s.text[s.i] != '"'; s.i++ {
		if s.text[s.i] == '\\' {
			s.i++
		}
	}
	s.i++
}
