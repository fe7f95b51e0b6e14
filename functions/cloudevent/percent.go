package cloudevent

import "strings"

const upperHex = "0123456789ABCDEF"

// escape encodes an attribute's value for a header: space, double quote,
// percent and everything but printable ASCII become %XX, byte for byte (HTTP
// binding 1.0.2, section 3.1.3.2; the NATS binding is the same).
func escape(s string) string {
	escapes := 0
	for i := range len(s) {
		if escaped(s[i]) {
			escapes++
		}
	}
	if escapes == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*escapes)
	for i := range len(s) {
		if c := s[i]; escaped(c) {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escaped(c byte) bool {
	return c <= ' ' || c >= 0x7f || c == '"' || c == '%'
}

// unescape reverses escape, and accepts the encodings of other senders: first a
// quoted string, then one round of percent-decoding. A percent sign without two
// hexadecimal digits after it stays unchanged, because the SDK's senders do not
// encode any. The result may be invalid UTF-8.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && (s == "" || s[0] != '"') {
		return s
	}
	return string(percentDecode(unquote([]byte(s))))
}

// unquote decodes a quoted string (RFC 7230, section 3.2.6). Anything else
// stays unchanged.
func unquote(b []byte) []byte {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return b
	}
	in := b[1 : len(b)-1]
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '"', in[i] == '\\' && i+1 == len(in):
			return b
		case in[i] == '\\':
			i++
		}
		out = append(out, in[i])
	}
	return out
}

// percentDecode decodes in place.
func percentDecode(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			high, ok1 := nibble(b[i+1])
			low, ok2 := nibble(b[i+2])
			if ok1 && ok2 {
				out = append(out, high<<4|low)
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return out
}

func nibble(c byte) (value byte, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
