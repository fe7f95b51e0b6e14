package attributes_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tandem-fn/tandem/eventing/internal/attributes"
)

func TestEscape(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, plain, escaped string
	}{
		{name: "plain text stays", plain: "com.example.order/42?a=b", escaped: "com.example.order/42?a=b"},
		{name: "the example of the HTTP binding", plain: "Euro € 😀", escaped: "Euro%20%E2%82%AC%20%F0%9F%98%80"},
		{name: "quote and percent", plain: `"100%"`, escaped: "%22100%25%22"},
		{name: "nothing", plain: "", escaped: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			if got := attributes.Escape(tt.plain); got != tt.escaped {
				t.Errorf("Escape(%q) = %q, want %q", tt.plain, got, tt.escaped)
			}
			got, err := attributes.Unescape(tt.escaped)
			if err != nil || got != tt.plain {
				t.Errorf("Unescape(%q) = %q, %v, want %q", tt.escaped, got, err, tt.plain)
			}
		})
	}
}

func TestUnescapeTakesWhatOthersWrite(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, value, want string
	}{
		{name: "quotes around the value", value: `"a b"`, want: "a b"},
		{name: "backslashes inside quotes", value: `"a\"b\\c"`, want: `a"b\c`},
		{name: "escapes in lower case", value: "%e2%82%ac", want: "€"},
		{name: "escapes without need", value: "%41%42", want: "AB"},
		{name: "UTF-8 as it is", value: "€", want: "€"},
		{name: "a percent sign that begins no escape", value: "100% wool%", want: "100% wool%"},
		{name: "only one round of decoding", value: "%2541", want: "%41"},
		{name: "one quote is a quote", value: `"`, want: `"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			got, err := attributes.Unescape(tt.value)
			if err != nil || got != tt.want {
				t.Errorf("Unescape(%q) = %q, %v, want %q", tt.value, got, err, tt.want)
			}
		})
	}

	t.Run("an overlong encoding is refused", func(t *testing.T) {
		t.Parallel()

		if got, err := attributes.Unescape("%C0%A0"); err == nil {
			t.Errorf("Unescape gave %q, want an error", got)
		}
	})
}

func FuzzEscapeRoundTrip(f *testing.F) {
	f.Add("Euro € 😀")
	f.Add(`"quoted\"`)
	f.Add("100%41")
	f.Fuzz(func(t *testing.T, s string) {
		escaped := attributes.Escape(s)
		if strings.ContainsFunc(escaped, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			t.Fatalf("Escape(%q) = %q is no header value", s, escaped)
		}
		got, err := attributes.Unescape(escaped)
		if !utf8.ValidString(s) {
			if err == nil {
				t.Fatalf("Unescape(Escape(%q)) = %q, want an error: not UTF-8", s, got)
			}
			return
		}
		if err != nil || got != s {
			t.Fatalf("Unescape(Escape(%q)) = %q, %v", s, got, err)
		}
	})
}

func TestBuilderSaysWhatIsWrong(t *testing.T) {
	t.Parallel()

	valid := [][2]string{{"specversion", "1.0"}, {"id", "1"}, {"source", "/s"}, {"type", "t"}}
	tests := []struct {
		name string
		set  [][2]string
		want string
	}{
		{name: "no version", set: [][2]string{{"id", "1"}, {"source", "/s"}, {"type", "t"}}, want: "specversion is missing"},
		{name: "another version", set: [][2]string{{"specversion", "0.3"}}, want: `specversion "0.3"`},
		{name: "nothing but a version", set: [][2]string{{"specversion", "1.0"}}, want: "id: MUST be a non-empty string; source: REQUIRED; type:"},
		{name: "an attribute twice", set: [][2]string{{"id", "1"}, {"id", "2"}}, want: "id: given more than once"},
		{name: "a source that is no URI reference", set: [][2]string{{"source", "%ZZ%00:"}}, want: "source: no URI reference"},
		{name: "a time in another format", set: append(valid[:4:4], [2]string{"time", "yesterday"}), want: "time: not as in RFC 3339"},
		{name: "a name with a dash", set: append(valid[:4:4], [2]string{"my-ext", "x"}), want: `attribute "my-ext"`},
		{name: "a NUL in an extension", set: append(valid[:4:4], [2]string{"ext", "a%00b"}), want: "ext: control character U+0000 at byte 1"},
		{name: "a noncharacter in the subject", set: append(valid[:4:4], [2]string{"subject", "%EF%BF%BF"}), want: "subject: noncharacter U+FFFF at byte 0"},
		{name: "a media type that is none", set: append(valid[:4:4], [2]string{"datacontenttype", "///"}), want: "datacontenttype: "},
		{name: "data among the attributes", set: [][2]string{{"data", "x"}}, want: "data: is no attribute"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var b attributes.Builder
			var err error
			for _, set := range tt.set {
				if err = b.Set(set[0], set[1]); err != nil {
					break
				}
			}
			if err == nil {
				_, err = b.Event(nil)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, tt.want)
			}
		})
	}
}
