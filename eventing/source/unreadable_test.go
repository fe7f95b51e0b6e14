package source_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/source"
)

// binaryWith returns the headers of an event in binary content mode, with more of them.
func binaryWith(more ...string) nats.Header {
	h := nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"17"}, "ce-source": {"/s"}, "ce-type": {"com.example.made"}}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = append(h[more[i]], more[i+1])
	}
	return h
}

func binaryWithID(id string) nats.Header {
	return nats.Header{"ce-specversion": {"1.0"}, "ce-id": {id}, "ce-source": {"/s"}, "ce-type": {"com.example.made"}}
}

func headerWithout(h nats.Header, name string) nats.Header {
	delete(h, name)
	return h
}

// jsonWith returns an event in JSON, with more members.
func jsonWith(more string) string {
	return `{"specversion":"1.0","id":"17","source":"/s","type":"com.example.made"` + more + `}`
}

func TestAMessageThatLooksLikeACloudEventAndIsNoneBecomesADeadLetter(t *testing.T) {
	t.Parallel()

	structured := nats.Header{"content-type": {"application/cloudevents+json"}}
	plain := nats.Header{"content-type": {"application/json"}}
	tooMany := binaryWith()
	for i := range 300 {
		tooMany[fmt.Sprintf("ce-x%d", i)] = []string{"1"}
	}
	forms := []struct {
		name   string
		header nats.Header
		data   string
		want   string // part of the reason
	}{
		{"structured, sent as application/json", plain, jsonWith(""), "content type is not application/cloudevents+json"},
		{"structured, sent as text", nats.Header{"Content-Type": {"text/plain"}}, jsonWith(""), "content type is not application/cloudevents+json"},
		{"structured without a content type, not valid", nil, jsonWith(`,"time":"2026-01-02T03:04Z"`), "time"},
		{"structured, cut off", nil, jsonWith("")[:40], "not JSON"},
		{"structured, cut off, sent as application/json", plain, jsonWith("")[:40], "content type"},
		{"structured, after a byte order mark", nil, "\ufeff" + jsonWith(""), "content type"},
		{"structured, in another case", nil, `{"SpecVersion":"1.0","Id":"17"}`, ""},
		{"structured, not JSON", structured, "x", "not JSON"},
		{"structured, empty", structured, "", "empty"},
		{"structured, no object", structured, "[]", "want a JSON object"},
		{"structured, with an object as an extension", structured, jsonWith(`,"x":{}`), "x: want a string"},
		{"structured, with a fraction as an extension", structured, jsonWith(`,"x":1.5`), "x is 1.5"},
		{"structured, with an illegal extension name", structured, jsonWith(`,"myExt":"1"`), `"myExt"`},
		{"structured, with a number as the id", structured, strings.Replace(jsonWith(""), `"17"`, "17", 1), "id: want a string"},
		{"structured, with data twice", structured, jsonWith(`,"data":1,"data_base64":"MQ=="`), "data"},
		{"structured, with data that is not base64", structured, jsonWith(`,"data_base64":"?"`), "base64"},
		{"structured, with half of a surrogate pair", structured, jsonWith(`,"subject":"\ud800"`), "surrogate"},
		{"structured, with a member twice", structured, jsonWith(`,"id":"18"`), `"id" occurs twice`},
		{"structured, in a charset that is not read", nats.Header{"content-type": {"application/cloudevents+json; charset=utf-16"}}, jsonWith(""), "charset"},
		{"in XML", nats.Header{"content-type": {"application/cloudevents+xml"}}, "<event/>", "application/cloudevents+xml"},
		{"a batch", nats.Header{"content-type": {"application/cloudevents-batch+json"}}, "[" + jsonWith("") + "]", "one event per message"},
		{"a batch without a content type", nil, "[" + jsonWith("") + "]", "a batch is not accepted"},
		{"a batch sent as application/json", plain, " [1, " + jsonWith("") + "]", "a batch is not accepted"},
		{"dataschema #", binaryWith("ce-dataschema", "#"), "1", `dataschema "#"`},
		{"structured, dataschema #", structured, jsonWith(`,"dataschema":"#"`), `dataschema "#"`},
		{"time without seconds", binaryWith("ce-time", "2026-01-02T03:04Z"), "1", `time "2026-01-02T03:04Z"`},
		{"time without a zone", binaryWith("ce-time", "2026-01-02T03:04:05"), "1", "time"},
		{"an extension name with an underscore", binaryWith("ce-my_ext", "1"), "1", `"my_ext"`},
		{"an extension name with a dash, in capitals", binaryWith("CE-MY-EXT", "1"), "1", `"my-ext"`},
		{"no id", headerWithout(binaryWith(), "ce-id"), "1", "id: missing"},
		{"an empty type", nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {"/s"}, "ce-type": {""}}, "1", "type: missing"},
		{"a blank subject", binaryWith("ce-subject", "%20"), "1", "subject: it is blank"},
		{"no specversion", headerWithout(binaryWith(), "ce-specversion"), "1", "specversion: missing"},
		{"an extension alone", nats.Header{"Ce-Tenant": {"acme"}}, "1", "specversion: missing"},
		{"specversion 0.3", nats.Header{"Ce-Specversion": {"0.3"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}}, "1", `specversion "0.3"`},
		{"specversion 1.1", nats.Header{"CE-SPECVERSION": {"1.1"}}, "1", `specversion "1.1"`},
		{"a long id", binaryWithID(strings.Repeat("x", 1025)), "1", "id"},
		{"structured, with a long type", structured, strings.Replace(jsonWith(""), "com.example.made", strings.Repeat("x", 1025), 1), "type"},
		{"an attribute twice", binaryWith("ce-id", "18"), "1", "id: the header occurs 2 times"},
		{"an attribute in two cases", binaryWith("Ce-Id", "18"), "1", `"id" occurs twice`},
		{"two content types", binaryWith("content-type", "a/b", "Content-Type", "c/d"), "1", "content-type"},
		{"a content type that is none", binaryWith("content-type", "a/b/c"), "1", "datacontenttype"},
		{"a source that is no URI", nats.Header{"ce-specversion": {"1.0"}, "ce-id": {"1"}, "ce-source": {":"}, "ce-type": {"t"}}, "1", `source ":"`},
		{"a control character", binaryWith("ce-subject", "a%00b"), "1", "control character"},
		{"bytes that are no UTF-8", binaryWith("ce-subject", "%ff"), "1", "not UTF-8"},
		{"too many attributes", tooMany, "1", "more than 256"},
		{"headers of the Kafka binding", nats.Header{"ce_specversion": {"1.0"}, "ce_id": {"1"}}, "1", "another protocol binding"},
	}
	for _, types := range [][]string{nil, {"com.example.made"}} {
		t.Run(fmt.Sprintf("types %q", types), func(t *testing.T) {
			t.Parallel()

			server := natstest.Start(t)
			eventtest.Publish(t, server, "EVENTS", 1, 1) // another type
			js := natstest.JetStream(t, server.URL())
			send := func(header nats.Header, data string) {
				t.Helper()
				if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "events.x", Header: header, Data: []byte(data)}); err != nil {
					t.Fatal(err)
				}
			}
			for _, form := range forms {
				send(form.header, form.data)
			}
			// Valid CloudEvents, and messages that do not look like one.
			send(binaryWith(), `{"specversion":"1.0"}`)
			others := []string{"", "text", `{"a":1}`, `{"a":{"specversion":"1.0"}}`, `["specversion"]`, `{"a":"\"specversion\""}`}
			for _, data := range others {
				send(nil, data)
			}

			f, p := newFunction(t), &progress{}
			var mu sync.Mutex
			reasons, delivered := map[string]string{}, map[string]int{}
			f.answer(func(w http.ResponseWriter, r *http.Request, e event.Event) int {
				mu.Lock()
				defer mu.Unlock()
				if r.URL.Path != "/dead-letters" {
					delivered[e.Type()]++
					return http.StatusNoContent
				}
				sequence, _, _ := strings.Cut(e.ID(), "-")
				reason, _ := e.Extensions()[eventing.ErrorDataExtension].(string)
				text, err := base64.StdEncoding.DecodeString(reason)
				if number, _ := strconv.Atoi(sequence); number > 1 && string(e.Data()) != forms[number-2].data {
					t.Errorf("dead letter of %s has data %q", forms[number-2].name, e.Data())
				}
				if err != nil || e.Source() != "/tandem/streams/EVENTS" || e.Type() != eventing.MessageType || e.Subject() != "" || e.Extensions()[eventing.ErrorCodeExtension] != "400" {
					t.Errorf("dead letter %v: %v", e, err)
				}
				reasons[sequence] = string(text)
				return http.StatusNoContent
			})
			hedging(t, server, f, p, source.Config{Types: types})
			eventtest.Eventually(t, "everything is acknowledged", func() bool { return p.floor("EVENTS") == uint64(1+len(forms)+1+len(others)+1) })
			mu.Lock()
			defer mu.Unlock()
			for i, form := range forms {
				reason, ok := reasons[fmt.Sprint(i+2)]
				where := fmt.Sprintf("; it is message %d on subject events.x", i+2)
				if !ok || !strings.HasPrefix(reason, "the message is not a valid CloudEvent: ") || !strings.Contains(reason, form.want) || !strings.HasSuffix(reason, where) {
					t.Errorf("%s: reason %q, want %q in it", form.name, reason, form.want)
				}
			}
			if len(reasons) != len(forms) {
				t.Errorf("%d dead letters, want %d", len(reasons), len(forms))
			}
			want := map[string]int{"com.example.made": 1}
			if types == nil {
				want["com.example.test"], want[eventing.MessageType] = 1, len(others)
			}
			if fmt.Sprint(delivered) != fmt.Sprint(want) {
				t.Errorf("delivered %v, want %v", delivered, want)
			}
		})
	}
}
