package drill

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGapsAndLatenciesBelongToTheirPhase(t *testing.T) {
	t.Parallel()

	begun := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	var r Record
	for _, ms := range []int{-50, 0, 100, 200, 950, 1400, 1450, 1500, 2100, 2200} {
		r.commits = append(r.commits, at(ms))
		r.events = append(r.events, handled{arrived: at(ms - 10), committed: at(ms)})
	}
	tests := []struct {
		name     string
		from, to int
		gap      time.Duration
		gapAt    time.Duration
		events   int
	}{
		{"a gap within it", 0, 1000, 750 * time.Millisecond, 200 * time.Millisecond, 3},
		{"one that began before it", 1000, 1450, 450 * time.Millisecond, 950 * time.Millisecond, 2},
		{"one that ends after it, as far as it is in it", 1450, 2000, 500 * time.Millisecond, 1500 * time.Millisecond, 1},
		{"nothing any more", 2300, 4000, 1800 * time.Millisecond, 2200 * time.Millisecond, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			p := r.measure(tt.name, begun, at(tt.from), at(tt.to))
			if p.Gap != tt.gap || p.GapAt != tt.gapAt || p.Events != tt.events {
				t.Errorf("gap %s at %s, %d events; want %s at %s, %d", p.Gap, p.GapAt, p.Events, tt.gap, tt.gapAt, tt.events)
			}
			if tt.events > 0 && (p.P50 != 10*time.Millisecond || p.P99 != 10*time.Millisecond) {
				t.Errorf("p50 %s, p99 %s; want 10ms", p.P50, p.P99)
			}
		})
	}
}

func TestItIsThroughWhenAllThatCameBeforeIsCommitted(t *testing.T) {
	t.Parallel()

	at := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	r := Record{events: []handled{
		{at.Add(-time.Second), at.Add(time.Second)},
		{at.Add(-time.Hour), at.Add(-time.Minute)},
		{at.Add(time.Second), at.Add(time.Hour)},
	}}
	if got := r.Through(at); !got.Equal(at.Add(time.Second)) {
		t.Errorf("through at %s", got)
	}
	if early := at.Add(-2 * time.Hour); !r.Through(early).Equal(early) {
		t.Errorf("nothing had come, and through at %s", r.Through(early))
	}
}

func TestOneBrokenPromiseFailsTheDrill(t *testing.T) {
	t.Parallel()

	passed := func(change func(*Result)) Result {
		r := Result{Scenario: "lose-cluster", Phases: []Phase{
			{Name: "before", To: time.Second, Events: 1, Gap: 50 * time.Millisecond},
			{Name: "during", From: time.Second, To: 2 * time.Second, Gap: 300 * time.Millisecond},
		}, RTO: 300 * time.Millisecond}
		change(&r)
		limit, why, _ := AllowedGap("lose-cluster", Conditions{Before: r.Phases[0].Gap})
		r.CheckGap(limit, why)
		r.Judge(0, 0, nil)
		return r
	}
	if r := passed(func(*Result) {}); !r.Passed {
		t.Errorf("nothing is wrong: %+v", r.Checks)
	}
	for name, change := range map[string]func(*Result){
		"a gap of the claim timeout and 101 ms": func(r *Result) { r.RTO = 351 * time.Millisecond },
		"a lost event":                          func(r *Result) { r.Audit.Counts = map[string]int64{"missing event": 1} },
		"a lost output":                         func(r *Result) { r.Audit.Counts = map[string]int64{"missing output": 1} },
		"an output twice":                       func(r *Result) { r.Audit.Counts = map[string]int64{"extra output": 1} },
		"a row":                                 func(r *Result) { r.Audit.Counts = map[string]int64{"different row": 1} },
		"an event that hangs":                   func(r *Result) { r.Audit.Pending = 1 },
	} {
		if r := passed(change); r.Passed {
			t.Errorf("%s: passed: %+v", name, r.Checks)
		}
	}
}

func TestTheReportIsWrittenForPeopleAndPrograms(t *testing.T) {
	t.Parallel()

	r := Result{
		Scenario: "lose-cluster", What: "a cluster | goes", Begun: time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC),
		Phases: []Phase{{Name: "before", To: time.Second}}, Notes: []Note{{At: time.Second, Text: "a <b> & c | d"}}, Rates: []float64{1, 2, 3},
	}
	r.Check("something", false, 3*time.Second, time.Second, "why")
	r.verdict()
	dir, err := r.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"report.md": "| something | 3s | 1s (why) | **broken** |", "report.json": `"passed": false`, "chart.svg": "drill lose-cluster: failed",
	} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, want %q in\n%s", file, err, want, text)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(r.chart())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("chart: %v", err)
		}
	}
}
