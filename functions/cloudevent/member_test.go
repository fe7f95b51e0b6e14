package cloudevent_test

import (
	"fmt"
	"math/rand/v2"
	"net/textproto"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// rewritten returns e as a function receives it when it is sent alone.
func rewritten(t *testing.T, e event.Event) event.Event {
	t.Helper()

	header, body, err := cloudevent.WriteBinary(e, func(name string) string {
		if name == "datacontenttype" {
			return "Content-Type"
		}
		return textproto.CanonicalMIMEHeaderKey("ce-" + name)
	})
	if err != nil {
		t.Fatal(err)
	}
	read, err := cloudevent.ReadBinary(header, body, function)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestAnEventIsTheSameInABatchAndAlone(t *testing.T) {
	t.Parallel()

	types := []string{"", "application/json", "application/a+json; v=1", "text/plain", "image/png"}
	data := []string{"", "{}", `{"a": "é<\u2028"}`, "null", "1", `"x"`, " {}", "{}\n", "plain", "\xff", "\"\xff\"", "1 2", "{}{}", `1},{"id":"other"`}
	r := rand.New(rand.NewPCG(1, 2))
	together := 0
	for i := range 20_000 {
		e := event.New()
		e.SetID(fmt.Sprintf("id %d %%", i))
		e.SetSource([]string{"/a/b", "urn:x:y", "https://e.example/ü?q=1#f"}[r.IntN(3)])
		e.SetType("com.example.<ü>")
		if ct := types[r.IntN(len(types))]; ct != "" {
			e.SetDataContentType(ct)
		}
		if r.IntN(2) == 0 {
			e.SetSubject(`a "subject"`)
		}
		if r.IntN(2) == 0 {
			e.SetTime(time.Unix(r.Int64N(1e9), r.Int64N(1e9)).In(time.FixedZone("", 7200)))
		}
		if r.IntN(2) == 0 {
			e.SetExtension("tenant", []any{"acme", "", "%41", 7, true}[r.IntN(5)])
		}
		if r.IntN(2) == 0 {
			e.SetDataSchema("https://e.example/schema")
		}
		e.DataEncoded, e.DataBase64 = []byte(data[r.IntN(len(data))]), r.IntN(2) == 0
		text, ok := cloudevent.AppendMember([]byte{'['}, e)
		if !ok {
			if len(text) != 1 {
				t.Fatalf("appended %q", text)
			}
			continue
		}
		together++
		members, err := cloudevent.ReadBatch(append(text, ']'), function)
		if err != nil || len(members) != 1 || members[0].Err != nil {
			t.Fatalf("%s: %v %v", text, members, err)
		}
		if diff := cmp.Diff(rewritten(t, e), members[0].Event); diff != "" {
			t.Fatalf("%s: (-alone +in a batch)\n%s", text, diff)
		}
	}
	if together < 5_000 {
		t.Errorf("only %d of the events may be in a batch", together)
	}
}
