package cloudevent

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTextIsPlainAsByteForByte(t *testing.T) {
	t.Parallel()

	printable := func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f }) < 0
	}
	plain := func(s string) bool {
		text, err := json.Marshal(s)
		return err == nil && string(text) == `"`+s+`"` && printable(s)
	}
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				text := []byte(strings.Repeat("x", length))
				text[at] = byte(c)
				s := string(text)
				if got, want := isPrintableASCII(s), printable(s); got != want {
					t.Fatalf("isPrintableASCII(%q) = %t, want %t", s, got, want)
				}
				if got, want := isPlainJSON(s), plain(s); got != want {
					t.Fatalf("isPlainJSON(%q) = %t, want %t", s, got, want)
				}
				if at+1 < length { // a byte that a borrow may reach
					text[at+1] = byte(255 - c)
					s = string(text)
					if got, want := isPrintableASCII(s), printable(s); got != want {
						t.Fatalf("isPrintableASCII(%q) = %t, want %t", s, got, want)
					}
					if got, want := isPlainJSON(s), plain(s); got != want {
						t.Fatalf("isPlainJSON(%q) = %t, want %t", s, got, want)
					}
				}
			}
		}
	}
}
