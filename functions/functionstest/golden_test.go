package functionstest_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

func TestEffectsAreTheGoldenOnes(t *testing.T) {
	t.Parallel()
	functionstest.Golden(t, orders(sound), functionstest.Events(t, file), "testdata/orders.golden")
}

// golden returns the report of Golden.
func golden(t *testing.T, f functions.Function, events []event.Event, file string) []string {
	t.Helper()
	r := &recorder{T: t}
	functionstest.Golden(r, f, events, file)
	return r.reported
}

// Not in parallel, because it sets the flag.
func TestGoldenFileIsWrittenReadAndCompared(t *testing.T) { //nolint:paralleltest // see above
	was := flag.Lookup("update").Value.String()
	set := func(value string) {
		if err := flag.Set("update", value); err != nil {
			t.Fatal(err)
		}
	}
	set("false")
	defer set(was)
	events := functionstest.Events(t, file)
	file := filepath.Join(t.TempDir(), "new", "orders.golden")
	if got := golden(t, orders(sound), events, file); len(got) != 1 || !strings.Contains(got[0], "write it with go test -update") {
		t.Errorf("without a file it reports %q", got)
	}

	set("true")
	got := golden(t, orders(sound), events, file)
	set("false")
	if len(got) != 0 {
		t.Errorf("writing reports %q", got)
	}
	if got := golden(t, orders(sound), events, file); len(got) != 0 {
		t.Errorf("the file that was written differs from the expected one: %q", got)
	}

	other := orders(func(e event.Event, data ordered, fx *functions.Effects) error {
		err := sound(e, data, fx)
		fx.Writes[0].Row["flag"] = false
		return err
	})
	got = golden(t, other, events, file)
	if len(got) != 1 || !strings.Contains(got[0], "flag = true") || !strings.Contains(got[0], "flag = false") {
		t.Errorf("another function reports %q", got)
	}

	broken := orders(func(event.Event, ordered, *functions.Effects) error { panic("out of ideas") })
	if got := golden(t, broken, events, file); len(got) < 2 || !strings.Contains(got[0], "out of ideas") {
		t.Errorf("a function that breaks reports %q", got)
	}
}

func TestEventsAreReadInBothForms(t *testing.T) {
	t.Parallel()

	const one = `{"specversion":"1.0","source":"/x","id":"1","type":"t","data":1}`
	const two = `{"specversion":"1.0","source":"/x","id":"2","type":"t"}`
	for name, text := range map[string]string{
		"batch": " [" + one + ",\n" + two + "]\n",
		"lines": one + "\n\n" + two,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := functionstest.Events(t, write(t, text))
			if len(events) != 2 || events[0].ID() != "1" || string(events[0].Data()) != "1" || events[1].ID() != "2" {
				t.Errorf("read %v", events)
			}
		})
	}
}

func TestEventsThatAreNoneAreNamed(t *testing.T) {
	t.Parallel()

	const one = `{"specversion":"1.0","source":"/x","id":"1","type":"t"}`
	for name, tt := range map[string]struct{ text, says string }{
		"batch":      {`[` + one + `,{"specversion":"1.0"}]`, "event 2: "},
		"lines":      {one + "\n\n{}\n", "line 3: "},
		"no JSON":    {"events", "line 1: "},
		"half batch": {"[" + one, "want"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{T: t}
			done := make(chan bool)
			go func() {
				defer close(done)
				functionstest.Events(r, write(t, tt.text))
			}()
			<-done
			if len(r.reported) != 1 || !strings.HasPrefix(r.reported[0], "read events from ") || name != "half batch" && !strings.Contains(r.reported[0], tt.says) {
				t.Errorf("it reports %q, want %q", r.reported, tt.says)
			}
		})
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "events.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
