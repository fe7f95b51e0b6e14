package attributes_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/event"

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

func TestJSONReadsWhatTheFormatAllows(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, members string // besides specversion, id, source and type
		want          func(e event.Event) string
		is            string
	}{
		{name: "JSON data byte for byte", members: `"data":{ "b":1.50, "a":"\u00e9" }`, want: data, is: `{ "b":1.50, "a":"\u00e9" }`},
		{name: "data without a content type is JSON", members: `"data":"x"`, want: event.Event.DataContentType, is: "application/json"},
		{name: "text", members: `"datacontenttype":"text/plain","data":"a\nb"`, want: data, is: "a\nb"},
		{name: "text that is JSON", members: `"datacontenttype":"application/x+json; v=1","data":"a"`, want: data, is: `"a"`},
		{name: "an object of a type that is not JSON", members: `"datacontenttype":"application/xml","data":{"a":1}`, want: data, is: `{"a":1}`},
		{name: "bytes", members: `"data_base64":"AP8="`, want: data, is: "\x00\xff"},
		{name: "null is no attribute", members: `"subject":null,"ext":null`, want: event.Event.Subject, is: ""},
		{name: "an integer", members: `"ext":-2147483648`, want: extension, is: "-2147483648"},
		{name: "a boolean", members: `"ext":true`, want: extension, is: "true"},
		{name: "a time in another zone", members: `"time":"2001-01-01T00:30:00+01:00"`, want: func(e event.Event) string { return e.Time().String() }, is: "2000-12-31 23:30:00 +0000 UTC"},
		{name: "nothing more", members: `"ext":"x"`, want: data, is: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := attributes.JSON([]byte(`{` + tt.members + `,"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.want(e); got != tt.is {
				t.Errorf("got %q, want %q", got, tt.is)
			}
		})
	}
}

func data(e event.Event) string { return string(e.Data()) }

func extension(e event.Event) string {
	value, _ := e.Extensions()["ext"].(string)
	return value
}

func TestJSONSaysWhatIsNoEvent(t *testing.T) {
	t.Parallel()

	tests := []struct {
		name, text, want string
	}{
		{name: "nothing", text: ``, want: "want a JSON object"},
		{name: "a list", text: `[]`, want: "want a JSON object"},
		{name: "half of an object", text: `{"specversion":"1.0"`, want: "want a JSON object"},
		{name: "no UTF-8", text: "{\"a\":\"\xff\"}", want: "not UTF-8"},
		{name: "no version", text: `{"id":"1","source":"/s","type":"t"}`, want: "specversion is missing"},
		{name: "a number for an id", text: `{"id":1}`, want: "id: want a string"},
		{name: "a fraction", text: `{"ext":1.5}`, want: "extension ext: want"},
		{name: "an integer that is too large", text: `{"ext":2147483648}`, want: "extension ext: want"},
		{name: "an object for an extension", text: `{"ext":{}}`, want: "extension ext: want"},
		{name: "a name in upper case", text: `{"Ext":"x"}`, want: `attribute "Ext": want lower-case`},
		{name: "an empty name", text: `{"":"x"}`, want: `attribute "": want lower-case`},
		{name: "a number for data_base64", text: `{"data_base64":0}`, want: "data_base64: want"},
		{name: "data twice", text: `{"data":1,"data_base64":""}`, want: "want one of them"},
		{name: "a time before all years", text: `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"0000-01-01T00:00:00+01:00"}`, want: "time: year -1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			e, err := attributes.JSON([]byte(tt.text))
			if err == nil {
				t.Fatalf("took it as %v", e)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", err, tt.want)
			}
		})
	}
}
