package ingest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/ingest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

// report is the answer to a batch of which some events were not stored.
type report struct {
	Stored int
	Failed []failed
}

type failed struct {
	Index      int
	Source, ID string
	Status     int
	Error      string
}

func TestABatchIsStoredButForTheEventsThatTheAnswerNames(t *testing.T) {
	t.Parallel()

	one := func(id, eventType string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"/s","type":"` + eventType + `"}`
	}
	large := func(id string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"/s","type":"t.large","datacontenttype":"text/plain","data":"` + strings.Repeat("x", 1200<<10) + `"}`
	}
	for _, tt := range []struct {
		name    string
		members []string
		code    int
		failed  []string // index, status and id of each
		ids     []string // of the events in the stream
		want    string   // in the answer
	}{
		{name: "none", code: 202},
		{name: "all", members: []string{one("1", "t.1"), one("2", "t.2"), one("3", "t.3")}, code: 202, ids: []string{"1", "2", "3"}},
		{name: "one too large", members: []string{one("1", "t.1"), large("2"), one("3", "t.3")}, code: 413, failed: []string{"1 413 2"}, ids: []string{"1", "3"}, want: "larger than the stream accepts"},
		{name: "attributes too large", members: []string{strings.Replace(one("1", "t.1"), "{", `{"long":"`+strings.Repeat("x", 70<<10)+`",`, 1), one("2", "t.2")}, code: 431, failed: []string{"0 431 1"}, ids: []string{"2"}},
		{name: "two invalid", members: []string{one("", "t.0"), one("2", "t.2"), "5"}, code: 400, failed: []string{"0 400 ", "2 400 "}, ids: []string{"2"}, want: "not a CloudEvent: id: missing"},
		{name: "one of a type that is full", members: []string{one("1", "full"), one("2", "full"), one("3", "t.3")}, code: 503, failed: []string{"1 503 2"}, ids: []string{"1", "3"}, want: "not stored, send it again: "},
		{name: "one of a type that the stream does not take", members: []string{one("1", "foreign"), one("2", "t.2")}, code: 503, failed: []string{"0 503 1"}, ids: []string{"2"}},
		{name: "of all kinds", members: []string{one("", "t.0"), large("2"), one("3", "full"), one("4", "full"), one("5", "t.5")}, code: 503, failed: []string{"0 400 ", "1 413 2", "3 503 4"}, ids: []string{"3", "5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			createStream(t, server, natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.t.*", "events.full"}, Discard: natsjs.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: 1})
			address, _ := startIngest(t, server, ingest.Config{MaxEventBytes: 4 << 20})
			batch := http.Header{"Content-Type": {"application/cloudevents-batch+json"}}
			for range 2 { // repeating the request changes nothing
				code, body := settled(t, http.MethodPost, address, batch, "["+strings.Join(tt.members, ",")+"]")
				if code != tt.code || !strings.Contains(body, tt.want) {
					t.Errorf("answered %d %.300s, want %d and %q", code, body, tt.code, tt.want)
				}
				if tt.failed == nil {
					continue
				}
				var got report
				if err := json.Unmarshal([]byte(body), &got); err != nil {
					t.Fatalf("%v: %.300s", err, body)
				}
				var failed []string
				for _, f := range got.Failed {
					failed = append(failed, fmt.Sprintf("%d %d %s", f.Index, f.Status, f.ID))
				}
				if diff := cmp.Diff(tt.failed, failed); diff != "" {
					t.Errorf("events that are not stored (-want +got):\n%s", diff)
				}
				if got.Stored != len(tt.members)-len(tt.failed) {
					t.Errorf("the answer counts %d stored events of %d", got.Stored, len(tt.members))
				}
			}
			stored := readIDs(t, server.URL())
			var ids []string
			for id, n := range stored {
				ids = append(ids, id)
				if n != 1 {
					t.Errorf("event %s is stored %d times", id, n)
				}
			}
			slices.Sort(ids)
			if diff := cmp.Diff(tt.ids, ids); diff != "" {
				t.Errorf("events in the stream (-want +got):\n%s", diff)
			}
			eventtest.Eventually(t, "it is healthy", func() bool {
				code, _ := Request(t, http.MethodGet, address+"/health", nil, "")
				return code == http.StatusOK
			})
		})
	}
}

func TestWhatIsNoBatchIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()

	address, _ := startIngest(t, natstest.Start(t), ingest.Config{})
	batch := http.Header{"Content-Type": {"application/cloudevents-batch+json"}}
	for body, want := range map[string]string{
		"":                         "not a batch of CloudEvents: it is empty, want JSON",
		`{"specversion":"1.0"}`:    "not a batch of CloudEvents: want a JSON array",
		`[{"specversion":"1.0"},`:  "not a batch of CloudEvents: it is not JSON",
		"[\"\xff\"]":               "not a batch of CloudEvents: it is not UTF-8",
		`[{"specversion":"1.0"}]]`: "not a batch of CloudEvents: it is not JSON",
	} {
		if code, answer := Request(t, http.MethodPost, address, batch, body); code != http.StatusBadRequest || !strings.Contains(answer, want) {
			t.Errorf("%q: %d %s, want 400 and %q", body, code, answer, want)
		}
	}
}

func TestABatchHasABoundedNumberOfElements(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, _ := startIngest(t, server, ingest.Config{})
	batch := http.Header{"Content-Type": {"application/cloudevents-batch+json"}}
	for _, element := range []string{"{}", "1", `{"a":[1,2]}`} {
		for elements, want := range map[int]int{20_000: http.StatusBadRequest, 20_001: http.StatusRequestEntityTooLarge} {
			code, answer := Request(t, http.MethodPost, address, batch, "["+strings.Repeat(element+",", elements-1)+element+"]")
			if code != want || code == http.StatusBadRequest && strings.Count(answer, `"index":`) != elements {
				t.Errorf("%d elements %s: answered %d %.200s, want %d", elements, element, code, answer, want)
			}
		}
	}
}

func TestABatchOfThousandsIsStoredAndCanBeRepeated(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	address, _ := startIngest(t, server, ingest.Config{})
	batch := http.Header{"Content-Type": {"application/cloudevents-batch+json"}}
	bodyOf := func(events []int) string {
		var body strings.Builder
		for _, i := range events {
			fmt.Fprintf(&body, `,{"specversion":"1.0","id":"%d","source":"/s","type":"t"}`, i)
		}
		return "[" + body.String()[1:] + "]"
	}
	var all []int
	for i := range 10_000 {
		all = append(all, i)
	}
	for range 2 {
		left := all
		eventtest.Reaches(t, "they are stored", len(all), func() int {
			if len(left) == 0 {
				return len(all)
			}
			code, answer := Request(t, http.MethodPost, address, batch, bodyOf(left))
			if code == http.StatusAccepted {
				left = nil
				return len(all)
			}
			var failed []int // on a busy machine, not all events are stored within the timeout
			for _, f := range notStored(t, code, answer, len(left)).Failed {
				failed = append(failed, left[f.Index])
			}
			left = failed
			return len(all) - len(left)
		})
	}
	if n := storedMessages(t, server); n != 10_000 {
		t.Errorf("%d events are stored, want 10000", n)
	}
	server.Stop()
	code, answer := Request(t, http.MethodPost, address, batch, bodyOf(all))
	if got := notStored(t, code, answer, len(all)); got.Stored != 0 || len(got.Failed) != 10_000 {
		t.Errorf("without NATS: %d stored, %d failed", got.Stored, len(got.Failed))
	}
}

// notStored parses the answer 503 to a batch of n events. Without a report, for example when
// the stream does not answer in time, the sender does not know which events are stored.
func notStored(t *testing.T, code int, answer string, n int) (got report) {
	t.Helper()
	if code != http.StatusServiceUnavailable {
		t.Fatalf("the answer is %d %.300s, want 503", code, answer)
	}
	if strings.HasPrefix(answer, "not stored, send it again: ") {
		got.Failed = make([]failed, n)
		for i := range got.Failed {
			got.Failed[i].Index = i
		}
		return got
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil {
		t.Fatalf("%.300s: %v", answer, err)
	}
	return got
}

func header(id, eventType string) http.Header {
	return http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {id}, "Ce-Source": {"/s"}, "Ce-Type": {eventType}}
}

func createStream(t *testing.T, server *natstest.Server, cfg natsjs.StreamConfig) {
	t.Helper()

	if _, err := natstest.JetStream(t, server.URL()).CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// storedMessages returns the number of messages in stream EVENTS.
func storedMessages(t *testing.T, server *natstest.Server) uint64 {
	t.Helper()

	stream, err := natstest.JetStream(t, server.URL()).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}
