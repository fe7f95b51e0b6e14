package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/functions/internal/jsonscan"
)

func FuzzValidAcceptsWhatEncodingJSONDoes(f *testing.F) {
	for _, text := range []string{
		``, ` `, `{`, `}`, `[`, `]`, `,`, `:`, `"`, `-`, `{}`, `[]`, ` { "a" : [ 1 , -2.5e+3 , true , false , null , "x" ] } `,
		`{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `{"a"}`, `{"a":}`, `{1:2}`, `{"a":1]`, `[1}`, `[[],{}]`, `{"a":{}`, `1 2`, `{} {}`,
		`0`, `00`, `01`, `-0`, `-01`, `+1`, `.5`, `5.`, `1.e1`, `1e`, `1e+`, `1E-07`, `--1`, `1-1`, `0x1`, `1e5.5`,
		`tru`, `truex`, `True`, `nul`, `null null`, `falsey`,
		`"a\"b\\c\/\b\f\n\r\t"`, `"\u00e9\uD800"`, `"\u00g0"`, `"\u12"`, `"\x"`, `"\`, `"\"`, "\"\x00\"", "\"\n\"", "\"\x7f\xff\"", "\ufeff1", "1\x00", "[\x00]", "\x00",
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
		strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_000),
		strings.Repeat(`[{},`, 6_000) + "1" + strings.Repeat("]", 6_000),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want := json.Valid(text)
		if got := jsonscan.Valid(text); got != want {
			t.Fatalf("Valid(%q) = %t, want %t", text, got, want)
		}
		s := jsonscan.New(text)
		value := s.Value()
		if s.Failed() && value != nil {
			t.Errorf("Value of %q after a syntax error is %q, want nil", text, value)
		}
		if trimmed := bytes.Trim(text, " \t\r\n"); want && !bytes.Equal(value, trimmed) {
			t.Errorf("Value of %q is %q, want %q", text, value, trimmed)
		}
	})
}

func TestMembersAreReadAsTheyAreSpelled(t *testing.T) {
	t.Parallel()

	s := jsonscan.New([]byte(` {"a" : 1.0 , "\u0062":[ {} ,"x"], "é": "\n"} `))
	s.Peek()
	var got []string
	for more := s.More(true, '}'); more; more = s.More(false, '}') {
		name, plain := s.Name()
		got = append(got, string(name)+"="+string(s.Value()))
		if want := string(name) == `"a"`; plain != want {
			t.Errorf("name %s is plain: %t, want %t", name, plain, want)
		}
	}
	if want := `"a"=1.0;"\u0062"=[ {} ,"x"];"é"="\n"`; strings.Join(got, ";") != want || !s.Done() {
		t.Errorf("members are %s, done %t, want %s", strings.Join(got, ";"), s.Done(), want)
	}
}

func TestALoopOverElementsEndsAtASyntaxError(t *testing.T) {
	t.Parallel()

	for _, text := range []string{`[1,2`, `[1 2]`, `[1,2}`, `[1,"`, `[`, `[[[`} {
		s := jsonscan.New([]byte(text))
		count := 0
		for more := s.More(true, ']'); more; more = s.More(false, ']') {
			s.Value()
			if count++; count > len(text) {
				t.Fatalf("the loop over %s does not end", text)
			}
		}
		if s.Done() || !s.Failed() {
			t.Errorf("%s is read without an error", text)
		}
	}
}

func TestStringsEndWhereEncodingJSONEndsThem(t *testing.T) {
	t.Parallel()

	for length := range 20 {
		for at := range length {
			for c := range 256 {
				for _, next := range []byte{'x', '"', '\\', 0x1f, 0x80, '!', '#'} {
					inner := []byte(strings.Repeat("x", length) + "x")
					inner[at], inner[at+1] = byte(c), next
					text := `"` + string(inner) + `"`
					want := json.Valid([]byte(text))
					if got := jsonscan.Valid([]byte(text)); got != want {
						t.Fatalf("Valid(%q) = %t, want %t", text, got, want)
					}
					s := jsonscan.New([]byte(text))
					quoted, plain := s.String()
					ascii := strings.IndexFunc(string(quoted), func(r rune) bool { return r >= 0x80 || r == '\\' }) < 0
					if !s.Failed() && plain != ascii {
						t.Fatalf("String of %q is plain: %t, want %t", text, plain, ascii)
					}
				}
			}
		}
	}
}
