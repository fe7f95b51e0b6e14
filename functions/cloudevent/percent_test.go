package cloudevent_test

import (
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestValuesAreEncodedAsTheBindingsSay(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, plain, escaped string }{
		{"plain text stays", "com.example.order/42?a=b", "com.example.order/42?a=b"},
		{"the bindings' example", "Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"},
		{"quote and percent", `"100%"`, "%22100%25%22"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got := cloudevent.Escape(tt.plain); got != tt.escaped {
				t.Errorf("%q is written as %q, want %q", tt.plain, got, tt.escaped)
			}
			if got := cloudevent.Unescape(tt.escaped); got != tt.plain {
				t.Errorf("%q is read as %q, want %q", tt.escaped, got, tt.plain)
			}
		})
	}
}

func TestValuesAreDecodedAsTheBindingsSayAndAsOthersWriteThem(t *testing.T) {
	t.Parallel()

	tests := []struct{ name, value, want string }{
		{"plain", "a-b_c~d", "a-b_c~d"},
		{"lower-case digits", "%e2%82%ac", "€"},
		{"encoded without need", "%61%62", "ab"},
		{"one round only", "100%2525", "100%25"},
		{"percent signs of a sender that does not encode", "100% of 5%", "100% of 5%"},
		{"half an encoding", "a%4", "a%4"},
		{"no encoding", "%zz%4z%z4", "%zz%4z%z4"},
		{"UTF-8 as it is", "grün", "grün"},
		{"quoted string", `"a b"`, "a b"},
		{"escapes in a quoted string", `"say \"hi\" \\ \x"`, `say "hi" \ x`},
		{"encoded in a quoted string", `"a%20b"`, "a b"},
		{"empty quoted string", `""`, ""},
		{"a quote inside", `a"b`, `a"b`},
		{"two quoted strings", `"a" "b"`, `"a" "b"`},
		{"quoted string that does not end", `"a\"`, `"a\"`},
		{"only a quote", `"`, `"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got := cloudevent.Unescape(tt.value); got != tt.want {
				t.Errorf("%q is read as %q, want %q", tt.value, got, tt.want)
			}
		})
	}
}

func FuzzWhatIsEscapedIsAHeaderAndComesBack(f *testing.F) {
	f.Add("Euro € 😀")
	f.Add(`"quoted\"`)
	f.Add("100%41")
	f.Add("\xff\x00")
	f.Fuzz(func(t *testing.T, s string) {
		escaped := cloudevent.Escape(s)
		if strings.ContainsFunc(escaped, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			t.Fatalf("%q is written as %q, which is no header value", s, escaped)
		}
		if got := cloudevent.Unescape(escaped); got != s {
			t.Fatalf("%q came back as %q", s, got)
		}
	})
}
