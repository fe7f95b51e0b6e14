package serve_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/functions/cloudevent"
)

func TestDeadLetterIsKeptWithoutWhatMadeItOne(t *testing.T) {
	t.Parallel()

	type kept struct {
		Function, Source, ID, Data, Reason string
		Code, Attempts                     int
		Extensions                         map[string]any
	}
	reason := base64.StdEncoding.EncodeToString([]byte("function flights: origin: missing\n"))
	tests := []struct {
		name    string
		body    string
		headers []string
		want    kept
	}{
		{
			name: "as Knative and our source send it",
			body: `{"a":1}`,
			headers: append(binary("fine", "1"), "ce-tandemfunction: flights", "ce-knativeerrordest: http://flights",
				"ce-knativeerrorcode: 422", "ce-knativeerrordata: "+reason, "ce-tandemattempts: 12", "ce-tenant: acme"),
			want: kept{Function: "flights", Source: "/tests", ID: "1", Data: `{"a":1}`, Reason: "function flights: origin: missing", Code: 422, Attempts: 12, Extensions: map[string]any{"tenant": "acme"}},
		},
		{
			name:    "in one piece, with a number for the code",
			body:    `{"specversion":"1.0","id":"7","source":"/tests","type":"other","knativeerrorcode":500,"knativeerrordata":"not base64!","tandemattempts":-1,"data":1}`,
			headers: []string{"content-type: application/cloudevents+json"},
			want:    kept{Source: "/tests", ID: "7", Data: `1`, Reason: "not base64!", Code: 500},
		},
		{
			name:    "function is known by the type if nobody says",
			headers: binary("rejects", "1"),
			want:    kept{Function: "rejects", Source: "/tests", ID: "1"},
		},
		{
			name:    "event that is dead because it is not valid",
			body:    "x",
			headers: []string{"ce-specversion: 1.0", "ce-source: http://bad host%00/", "ce-id: " + strings.Repeat("x", 2000), "ce-time: never", "ce-an-other: y"},
			want:    kept{Source: "http://bad host\ufffd/", ID: strings.Repeat("x", 1021) + "…", Data: "x"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			s := &shelf{}
			m := &memory{}
			send(t, newServer(t, newHandler(t, m, serve.Config{DeadLetters: s})).URL+"/dead-letters", tt.body, tt.headers...).want(t, 204, "")
			if len(s.letters) != 1 {
				t.Fatalf("%d dead letters were kept, want 1", len(s.letters))
			}
			l := s.letters[0]
			got := kept{
				Function: l.Function, Source: l.Event.Source(), ID: l.Event.ID(), Data: string(l.Event.Data()),
				Reason: l.Reason, Code: l.Code, Attempts: l.Attempts, Extensions: l.Event.Extensions(),
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("dead letter (-want +got):\n%s", diff)
			}
			if m.committed() != 0 {
				t.Error("a function had its part in it")
			}
		})
	}
}

func TestDeadLetterWhoseDataIsNotWhatItIsSaidToBeCanBeKept(t *testing.T) {
	t.Parallel()

	for _, data := range []string{`{"a":`, "\xff", `"\xff"`} {
		s := &shelf{}
		server := newServer(t, newHandler(t, &memory{}, serve.Config{DeadLetters: s}))
		send(t, server.URL+"/dead-letters", data, append(binary("fine", "1"), "content-type: application/json")...).want(t, 204, "")
		text, err := cloudevent.AppendJSON(nil, s.letters[0].Event)
		if err != nil || !json.Valid(text) || !utf8.Valid(text) {
			t.Errorf("data %q: the event becomes %q, error %v", data, text, err)
		}
	}
}

func TestDeadLetterIsTriedAgainIfItCannotBeKept(t *testing.T) {
	t.Parallel()

	s := &shelf{err: errors.New("no database")}
	server := newServer(t, newHandler(t, &memory{}, serve.Config{DeadLetters: s}))
	send(t, server.URL+"/dead-letters", "", binary("fine", "1")...).want(t, 503, "save dead letter: no database")
}

func TestDeadLetterThatIsNoEventIsRefused(t *testing.T) {
	t.Parallel()

	s := &shelf{}
	server := newServer(t, newHandler(t, &memory{}, serve.Config{DeadLetters: s}))
	send(t, server.URL+"/dead-letters", "{}", "content-type: application/json").want(t, 400, "this is not a CloudEvent")
	send(t, server.URL+"/dead-letters", "{", "content-type: application/cloudevents+json").want(t, 400, "it is not JSON")
	send(t, server.URL+"/dead-letters", "[]", batchType).want(t, 400, "one by one")
	if len(s.letters) != 0 {
		t.Errorf("%d were kept", len(s.letters))
	}
}

func TestWhatIsTooLargeIsSaidToWhoeverStillSends(t *testing.T) {
	t.Parallel()

	server := newServer(t, newHandler(t, &memory{}, serve.Config{}))
	for _, hasLength := range []bool{true, false} {
		for range 3 {
			large := strings.Repeat(" ", 8<<20)
			var body io.Reader = strings.NewReader(large)
			if !hasLength {
				body = io.MultiReader(body) // of unknown length
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range binary("fine", "1") {
				name, value, _ := strings.Cut(h, ": ")
				req.Header.Set(name, value)
			}
			do(t, req).want(t, 413, "want at most 1048576 bytes")
		}
	}
}

func TestDeadLetterMayBeLargerThanAnEvent(t *testing.T) {
	t.Parallel()

	s := &shelf{}
	server := newServer(t, newHandler(t, &memory{}, serve.Config{DeadLetters: s}))
	large := strings.Repeat(" ", 3<<20)
	send(t, server.URL, large, binary("fine", "1")...).want(t, 413, "too large")
	send(t, server.URL+"/dead-letters", large, binary("fine", "1")...).want(t, 204, "")
}
