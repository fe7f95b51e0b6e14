package jetstream

import "strings"

// maxTypeInSubject bounds the part of an event type in a subject, in bytes. A server
// closes the connection of a client that sends a line of more than 4 KiB.
const maxTypeInSubject = 200

// Subject returns the subject of events of this type in a stream: the stream's prefix,
// '.', and the type, in which '_' replaces everything that a subject cannot have: white
// space, control characters, wildcards and empty tokens. Only the first 200 bytes of
// the type are used. Subjects are for filters and for people; two types may share one.
func Subject(prefix, eventType string) string {
	if len(eventType) > maxTypeInSubject {
		eventType = eventType[:maxTypeInSubject]
	}
	if clean(eventType) {
		return prefix + "." + eventType
	}
	tokens := strings.Split(strings.ToValidUTF8(eventType, "_"), ".")
	for i, token := range tokens {
		token = strings.Map(func(r rune) rune {
			if forbidden(r) {
				return '_'
			}
			return r
		}, token)
		if token == "" {
			token = "_"
		}
		tokens[i] = token
	}
	return prefix + "." + strings.Join(tokens, ".")
}

// clean quickly accepts usual types.
func clean(s string) bool {
	dot := true // an empty token before it
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 || forbidden(rune(c)) || c == '.' && dot {
			return false
		}
		dot = c == '.'
	}
	return !dot
}

func forbidden(r rune) bool {
	return r <= ' ' || r == 0x7f || r == '*' || r == '>'
}
