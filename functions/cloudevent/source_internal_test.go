package cloudevent

import (
	"net/url"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

func FuzzSourceIsReadAndWrittenAsURLDoes(f *testing.F) {
	for _, source := range []string{
		"", "/", "//", "/a", "//host/a", "/a//b", "/../a", "a/b", "urn:a:b", "/a:b", "/a b", "/a%20b", "/a%2Fb", "/a?b", "/a?", "/a#b", "/a#", "/ä", "/a;b", "/a,b",
		"/a@b", "/a*b", "/a'b", "/a(b)", "/a!b", "/a$b&c+d=e", "/-._~", "/AZ09", "https://u:p@host/a?b#c", "mailto:a@b", "/a\x00", "/a\x7f", "*", ":", "/a\\b", "/[a]",
	} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		want, wantErr := url.Parse(source)
		got, err := parseSource(source)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: error is %v, want %v", source, err, wantErr)
		}
		if err == nil {
			if diff := cmp.Diff(*want, got, cmp.AllowUnexported(url.Userinfo{})); diff != "" {
				t.Fatalf("%q (-url.Parse +got):\n%s", source, diff)
			}
		}
		for _, u := range []url.URL{got, {Path: source}, {Path: source, RawQuery: "a"}, {Path: source, OmitHost: true}, {Path: source, RawPath: source + "%2F"}} {
			e := event.Event{Context: &event.EventContextV1{Source: types.URIRef{URL: u}}}
			if want := e.Source(); Source(e) != want {
				t.Fatalf("source of %#v is %q, want %q", u, Source(e), want)
			}
		}
	})
}
