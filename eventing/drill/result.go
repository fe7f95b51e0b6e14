package drill

import (
	"fmt"
	"time"

	"github.com/tandem-fn/tandem/eventing/audit"
)

// Result is the result of a drill.
type Result struct {
	Scenario string    `json:"scenario"`
	What     string    `json:"what"`
	Begun    time.Time `json:"begun"`
	Rate     float64   `json:"rate,omitempty"`
	Plant    string    `json:"plant,omitempty"`
	Options  string    `json:"options"`

	// Checks are the checked promises; Passed reports whether all were kept.
	Checks []Check `json:"checks"`
	Passed bool    `json:"passed"`

	// RTO is the longest gap between two commits from the strike until all clusters had
	// caught up. RPO is the number of missing events that the stream had acknowledged,
	// LostOutputs the number of missing outputs, and Duplicates the number of effects
	// applied twice. CatchUp is the time to catch up after everything was restored.
	RTO         time.Duration `json:"rto"`
	RPO         int64         `json:"rpo"`
	LostOutputs int64         `json:"lost_outputs"`
	Duplicates  int64         `json:"duplicates"`
	CatchUp     time.Duration `json:"catch_up"`

	// Forgotten is the minimum number of events that were committed, and then unknown
	// to the database that replaced the other one.
	Forgotten int64 `json:"forgotten"`

	Phases []Phase `json:"phases"`
	Notes  []Note  `json:"notes"`

	// Rates are commits per second, one for each 200 ms.
	Rates []float64 `json:"rates"`

	Audit audit.Report `json:"audit"`

	// Limits are the limits of the figures, for readers of the report.
	Limits []string `json:"limits,omitempty"`
}

// Check is a checked promise.
type Check struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Measured string `json:"measured"`
	Limit    string `json:"limit,omitempty"`
}

// Note is an action and its time.
type Note struct {
	At   time.Duration `json:"at"`
	Text string        `json:"text"`
}

// Check adds the result of checking a promise.
func (r *Result) Check(name string, ok bool, measured, limit any, why string) {
	text := show(limit)
	if why != "" {
		text += ": " + why
	}
	r.Checks = append(r.Checks, Check{Name: name, OK: ok, Measured: show(measured), Limit: text})
}

// Fail adds a promise that was not kept.
func (r *Result) Fail(name, format string, args ...any) {
	r.Checks = append(r.Checks, Check{Name: name, Measured: fmt.Sprintf(format, args...)})
}

func show(v any) string {
	if d, ok := v.(time.Duration); ok {
		return d.Round(time.Millisecond).String()
	}
	return fmt.Sprint(v)
}

// Measure adds the figures of the phases.
func (r *Result) Measure(rec *Record, begun, struck, healed, caught, ended time.Time) {
	r.Phases = []Phase{
		rec.measure("before", begun, begun, struck),
		rec.measure("during", begun, struck, healed),
		rec.measure("catching up", begun, healed, caught),
		rec.measure("after", begun, caught, ended),
	}
	r.RTO = max(r.Phases[1].Gap, r.Phases[2].Gap)
	r.Rates = rec.rates(begun, ended)
}

// CheckGap checks the longest gap, and that there were events before the strike.
func (r *Result) CheckGap(limit time.Duration, why string) {
	r.Check("longest gap between commits (RTO)", r.RTO <= limit, r.RTO, limit, why)
	if n := r.Phases[0].Events; n == 0 {
		r.Fail("events before the strike", "none was committed")
	}
}

// Judge checks the findings of Audit: missing events, including those missing from the
// stream, effects that were applied twice, and other differences. It sets Passed.
func (r *Result) Judge(missingFromStream, twice int64, differences []string) {
	counts := r.Audit.Counts
	r.RPO = max(0, missingFromStream) + counts["missing event"]
	r.LostOutputs = counts["missing output"]
	r.Duplicates = twice + counts["extra event"] + counts["extra output"]
	r.Check("events acknowledged but missing (RPO)", r.RPO == 0, r.RPO, 0, "")
	r.Check("outputs missing", r.LostOutputs == 0, r.LostOutputs, 0, "")
	r.Check("duplicates: applied twice, or put out under another id", r.Duplicates == 0, r.Duplicates, 0, "")
	var other int64
	for _, n := range counts {
		other += n
	}
	other += int64(len(differences))
	r.Check("anything else that differs in ledger, tables, outputs, dead letters", other == 0, other, 0, "")
	for i, d := range differences {
		r.Notes = append(r.Notes, Note{At: r.Phases[len(r.Phases)-1].To, Text: "differs: " + d})
		if i == 9 {
			break
		}
	}
	if r.Audit.Pending != 0 {
		r.Fail("events neither committed nor acknowledged", "%d", r.Audit.Pending)
	}
	r.verdict()
}

func (r *Result) verdict() {
	r.Passed = true
	for _, c := range r.Checks {
		r.Passed = r.Passed && c.OK
	}
}

// chart returns the drawing.
func (r *Result) chart() string {
	verdict := "passed"
	if !r.Passed {
		verdict = "failed"
	}
	c := Chart{Title: fmt.Sprintf("drill %s: %s", r.Scenario, verdict)}
	for i, rate := range r.Rates {
		c.Points = append(c.Points, Point{At: time.Duration(i) * 200 * time.Millisecond, Value: rate})
	}
	for _, p := range r.Phases {
		c.Marks = append(c.Marks, Span{At: p.From, Label: p.Name, Detail: fmt.Sprintf("%s, until %s", p.Name, show(p.To))})
		c.End = max(c.End, p.To)
	}
	for _, p := range r.Phases {
		c.Spans = append(c.Spans, Span{At: p.GapAt, For: p.Gap, Label: "longest gap " + p.Name + ": " + show(p.Gap), Detail: "between two commits"})
	}
	for _, n := range r.Notes {
		if n.At <= c.End {
			c.Spans = append(c.Spans, Span{At: n.At, Label: n.Text, Detail: n.Text})
		}
	}
	return c.SVG()
}
