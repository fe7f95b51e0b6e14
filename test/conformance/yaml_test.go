package conformance_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudevents/conformance/pkg/event"
	cehttp "github.com/cloudevents/conformance/pkg/http"
	"github.com/google/go-cmp/cmp"
)

func TestEveryEventOfTheConformanceTests(t *testing.T) {
	t.Parallel()

	e := start(t)
	client := &http.Client{}
	sent := 0
	for _, file := range files(t, "yaml/*.yaml", "yaml/*/*.yaml") {
		events, err := event.FromYaml(file, false)
		if err != nil {
			t.Fatal(err)
		}
		for n, want := range events {
			name := fmt.Sprintf("%s, event %d", filepath.Base(file), n+1)
			if err := e.forget(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The conformance tool sends the request in this form.
			req, err := cehttp.EventToRequest("http://"+e.address, want)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			resp, err := client.Do(req.WithContext(t.Context()))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusNoContent {
				t.Errorf("%s: the answer is %s %s, error %v", name, resp.Status, text, err)
				continue
			}
			attributes, data, err := e.seen(t.Context())
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if diff := cmp.Diff(expected(want), attributes); diff != "" {
				t.Errorf("%s: attributes (-want +got):\n%s", name, diff)
			}
			if strings.TrimSpace(data) != strings.TrimSpace(want.Data) {
				t.Errorf("%s: data is %q, want %q", name, data, want.Data)
			}
			sent++
		}
	}
	if sent != 15 {
		t.Errorf("%d events were sent, want 15", sent)
	}
}

// expected returns the attributes that the function has to receive: those of the
// scenario, without the surrounding white space that the tool omits, converted to 1.0.
func expected(e event.Event) map[string]string {
	all := map[string]string{}
	for name, value := range e.Attributes.Extensions {
		all[name] = strings.TrimSpace(value)
	}
	for _, name := range []string{"specversion", "type", "time", "id", "source", "subject", "datacontenttype"} {
		if value := e.Get(name); value != "" {
			all[name] = value
		}
	}
	if e.Attributes.SpecVersion == "0.3" {
		all["specversion"] = "1.0"
	}
	if e.Mode == event.StructuredMode && all["datacontenttype"] == "" {
		all["datacontenttype"] = "application/json" // as the JSON format specifies
	}
	return all
}
