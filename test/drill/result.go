package main

import (
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing/audit"
	"github.com/tandem-fn/tandem/test/world"
)

// result is what a drill has shown.
type result struct {
	Scenario string    `json:"scenario"`
	What     string    `json:"what"`
	Begun    time.Time `json:"begun"`
	Rate     float64   `json:"rate,omitempty"`
	Plant    string    `json:"plant,omitempty"`
	Options  string    `json:"options"`

	// Checks are what was promised, and Passed that all of it was kept.
	Checks []check `json:"checks"`
	Passed bool    `json:"passed"`

	// RTO is the longest gap between two commits from the strike on until all had
	// caught up, RPO how many events that the stream had acknowledged are missing,
	// with LostOutputs of the outputs, and Duplicates how often something was done
	// twice. CatchUp is the time from when all was given back.
	RTO         time.Duration `json:"rto"`
	RPO         int64         `json:"rpo"`
	LostOutputs int64         `json:"lost_outputs"`
	Duplicates  int64         `json:"duplicates"`
	CatchUp     time.Duration `json:"catch_up"`

	// Forgotten is how many events at least were committed, and then not known to a
	// database that took the other one's place.
	Forgotten int64 `json:"forgotten"`

	Phases []phase `json:"phases"`
	Notes  []note  `json:"notes"`

	// Rates are commits a second, one for each 200 ms.
	Rates []float64 `json:"rates"`

	Audit audit.Report `json:"audit"`

	// Limits say what the figures do not.
	Limits []string `json:"limits,omitempty"`
}

// check is something promised.
type check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Measured string `json:"measured"`
	Limit    string `json:"limit,omitempty"`
}

// note is what was done when.
type note struct {
	At   time.Duration `json:"at"`
	Text string        `json:"text"`
}

// check notes whether a promise was kept.
func (r *result) check(name string, ok bool, measured, limit any, why string) {
	text := show(limit)
	if why != "" {
		text += ": " + why
	}
	r.Checks = append(r.Checks, check{Name: name, OK: ok, Measured: show(measured), Limit: text})
}

// fail notes that one was not.
func (r *result) fail(name, format string, args ...any) {
	r.Checks = append(r.Checks, check{Name: name, Measured: fmt.Sprintf(format, args...)})
}

func show(v any) string {
	if d, ok := v.(time.Duration); ok {
		return d.Round(time.Millisecond).String()
	}
	return fmt.Sprint(v)
}

// measure gives the figures of the phases.
func (r *result) measure(rec *record, begun, struck, healed, caught, ended time.Time) {
	r.Phases = []phase{
		rec.measure("before", begun, begun, struck),
		rec.measure("during", begun, struck, healed),
		rec.measure("catching up", begun, healed, caught),
		rec.measure("after", begun, caught, ended),
	}
	r.RTO = max(r.Phases[1].Gap, r.Phases[2].Gap)
	r.Rates = rec.rates(begun, ended)
}

func (r *result) checkGap(limit time.Duration, why string) {
	r.check("longest gap between commits (RTO)", r.RTO <= limit, r.RTO, limit, why)
	if n := r.Phases[0].Events; n == 0 {
		r.fail("events before the strike", "none was committed")
	}
}

// judge adds what audit has found: what is missing, also from the stream, what was
// applied more often than it should be, and what else differs.
func (r *result) judge(missingFromStream, twice int64, differences []string) {
	counts := r.Audit.Counts
	r.RPO = max(0, missingFromStream) + counts["missing event"]
	r.LostOutputs = counts["missing output"]
	r.Duplicates = twice + counts["extra event"] + counts["extra output"]
	r.check("events acknowledged but missing (RPO)", r.RPO == 0, r.RPO, 0, "")
	r.check("outputs missing", r.LostOutputs == 0, r.LostOutputs, 0, "")
	r.check("duplicates: applied twice, or put out under another id", r.Duplicates == 0, r.Duplicates, 0, "")
	var other int64
	for _, n := range counts {
		other += n
	}
	other += int64(len(differences))
	r.check("anything else that differs in ledger, tables, outputs, dead letters", other == 0, other, 0, "")
	for i, d := range differences {
		r.Notes = append(r.Notes, note{At: r.Phases[len(r.Phases)-1].To, Text: "differs: " + d})
		if i == 9 {
			break
		}
	}
	if r.Audit.Pending != 0 {
		r.fail("events neither committed nor acknowledged", "%d", r.Audit.Pending)
	}
	r.verdict()
}

func (r *result) verdict() {
	r.Passed = true
	for _, c := range r.Checks {
		r.Passed = r.Passed && c.OK
	}
}

// chart draws it.
func (r *result) chart() string {
	verdict := "passed"
	if !r.Passed {
		verdict = "failed"
	}
	c := world.Chart{Title: fmt.Sprintf("drill %s: %s", r.Scenario, verdict)}
	for i, rate := range r.Rates {
		c.Points = append(c.Points, world.Point{At: time.Duration(i) * 200 * time.Millisecond, Value: rate})
	}
	for _, p := range r.Phases {
		c.Marks = append(c.Marks, world.Span{At: p.From, Label: p.Name, Detail: fmt.Sprintf("%s, until %s", p.Name, show(p.To))})
		c.End = max(c.End, p.To)
	}
	for _, p := range r.Phases {
		c.Spans = append(c.Spans, world.Span{At: p.GapAt, For: p.Gap, Label: "longest gap " + p.Name + ": " + show(p.Gap), Detail: "between two commits"})
	}
	for _, n := range r.Notes {
		if n.At <= c.End {
			c.Spans = append(c.Spans, world.Span{At: n.At, Label: n.Text, Detail: n.Text})
		}
	}
	return c.SVG()
}
