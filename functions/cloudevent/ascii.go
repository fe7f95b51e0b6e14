package cloudevent

// Words of eight bytes, with one value in each byte.
const (
	ones  = 0x0101010101010101
	highs = ones * 0x80
)

// word returns eight bytes of s starting at i, little-endian.
func word(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// below returns a word in which the highest bit of a byte is set if that byte of w, which is
// ASCII, is below c. The bit may also be set in a byte above such a byte.
func below(w uint64, c byte) uint64 { return w - ones*uint64(c) }

// isPrintableASCII reports whether s has no control characters and is ASCII.
func isPrintableASCII(s string) bool {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := word(s, i)
		if (w|below(w, ' ')|(w+ones))&highs != 0 { // w+ones: DEL
			return false
		}
	}
	for ; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// isPlainJSON reports whether encoding/json writes s unchanged, in quotation
// marks.
func isPlainJSON(s string) bool {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := word(s, i)
		special := w | below(w, ' ') | (w + ones) | below(w^ones*'"', 1) | below(w^ones*'\\', 1) | below(w^ones*'&', 1) |
			below(w&^(ones*2)^ones*'<', 1) // and '>'
		if special&highs != 0 {
			return false
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
