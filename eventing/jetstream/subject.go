package jetstream

import "strings"

// maxTypeInSubject bounds how much of an event type goes into a subject, in
// bytes. A server ends the connection of who sends it a line of more than 4 KiB.
const maxTypeInSubject = 200

// Subject is where in a stream an event of this type goes: the stream's prefix,
// '.', and the type, in which '_' stands for what a subject cannot have: white
// space, control characters, wildcards and empty tokens. At most the first 200
// bytes of the type count. Subjects are for filtering and for people; two types
// may share one.
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

// clean spares the usual types the work.
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
