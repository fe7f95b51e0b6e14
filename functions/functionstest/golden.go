package functionstest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/functions"
)

var update = flag.Bool("update", false, "functionstest: rewrite golden files with the current effects of the functions")

// Golden compares the effects that f computes from the events with those in file.
// The file is meant for people to read: each event, and below it its writes and
// outputs, or the reason why it is refused. With the flag -update it writes the file
// instead; review the file then, because no check replaces that.
//
// An intended difference requires a new [functions.Function] Version.
func Golden(tb testing.TB, f functions.Function, events []event.Event, file string) {
	tb.Helper()
	c := &checker{f: f, events: events}
	if _, ok := readJob(); ok || !c.checkInput(tb) {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# What function %s computes; rewrite it with: go test -update\n", f.Name)
	said := map[field]bool{}
	for i, e := range events {
		r := c.compute(tb.Context(), i)
		if r.Broken != "" {
			tb.Errorf("function %s fails on %s: %s", f.Name, c.describe(i), r.Broken)
		}
		fmt.Fprintf(&b, "\n%s %s %s\n", e.Type(), e.Source(), e.ID())
		r.print(&b, said)
	}
	got := b.String()
	if *update && !tb.Failed() {
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			tb.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		tb.Errorf("%v; write it with go test -update, and review it", err)
		return
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		tb.Errorf("effects of function %s (-%s +now), rewrite them with go test -update:\n%s", f.Name, file, diff)
	}
}

// print writes r to b as text. It omits the SQL of statements that are in said, and adds
// the others to said.
func (r record) print(b *strings.Builder, said map[field]bool) {
	switch {
	case r.Broken != "":
		fmt.Fprintf(b, "  broken: %s\n", oneLine(r.Broken))
	case r.Rejected != "":
		fmt.Fprintf(b, "  rejected: %s\n", oneLine(r.Rejected))
	case len(r.Parts) == 0:
		b.WriteString("  nothing\n")
	}
	for _, p := range r.Parts {
		fmt.Fprintf(b, "  %s\n", p.Head)
		for _, f := range p.Fields {
			if statement := (field{p.Head, f.Value}); f.Name == "sql" && said[statement] {
				continue
			} else if f.Name == "sql" {
				said[statement] = true
			}
			fmt.Fprintf(b, "    %s = %s\n", f.Name, oneLine(f.Value))
		}
	}
}

func oneLine(s string) string {
	return strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(s)
}
