package drill

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Write writes report.md, report.json and chart.svg into a new folder in dir, and
// returns that folder.
func (r *Result) Write(dir string) (string, error) {
	dir = filepath.Join(dir, r.Begun.UTC().Format("20060102-150405")+"-"+r.Scenario)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	for name, text := range map[string]string{"report.json": string(data) + "\n", "report.md": r.Markdown(), "chart.svg": r.chart()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", fmt.Errorf("write report: %w", err)
		}
	}
	return dir, nil
}

func mark(ok bool) string {
	if ok {
		return "kept"
	}
	return "**broken**"
}

// Markdown returns the report.
func (r *Result) Markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	verdict := "Passed."
	if !r.Passed {
		verdict = "Failed."
	}
	line("# Drill: %s\n", r.Scenario)
	line("**%s** %s. %s.", verdict, r.Begun.UTC().Format(time.RFC3339), upperFirst(r.What))
	if r.Plant != "" {
		line("\nA fault was planted: %s. It should have failed.", r.Plant)
	}
	line("\n%s\n\n![Commits a second](chart.svg)\n", r.Options)
	line("## What was promised\n\n| | measured | at most | |\n|---|---:|---:|---|")
	for _, c := range r.Checks {
		limit, why, _ := strings.Cut(c.Limit, ": ")
		if why != "" {
			limit += " (" + why + ")"
		}
		line("| %s | %s | %s | %s |", c.Name, c.Measured, limit, mark(c.OK))
	}
	line("\n## What was measured\n\n| | from | to | events | p50 | p99 | longest gap | longest without an event |\n|---|---:|---:|---:|---:|---:|---:|---:|")
	for _, p := range r.Phases {
		line("| %s | %.1f s | %.1f s | %d | %s | %s | %s, at %.1f s | %s |", p.Name, p.From.Seconds(), p.To.Seconds(), p.Events,
			micro(p.P50), micro(p.P99), show(p.Gap), p.GapAt.Seconds(), show(p.Idle))
	}
	line("\nEvents are those that arrived in that time; p50 and p99 are the time from an event's arrival in the stream to its")
	line("commit. A gap is the time between two commits. *During* ends when everything was restored, or when the service")
	line("recovered by itself; *catching up* when all running clusters have acknowledged and committed the events that had arrived by then.\n")
	line("| | |\n|---|---:|")
	a := &r.Audit
	for _, row := range []struct {
		what  string
		value any
	}{
		{"recovery time (RTO): the longest gap from the strike until all clusters had caught up", r.RTO},
		{"recovery point (RPO): events acknowledged but missing", r.RPO},
		{"outputs missing", r.LostOutputs},
		{"duplicates", r.Duplicates},
		{"time to catch up, after everything was restored", r.CatchUp},
		{"commits that the database lost, at least; they were repeated", r.Forgotten},
		{"distinct events in the stream", a.Events},
		{"committed, once", a.Handled},
		{"dead letters with a reason", a.Dead},
		{"rows compared", a.Rows},
		{"distinct outputs", a.Outputs},
		{"outputs repeated with the same source and id, which consumers deduplicate", a.Duplicates},
	} {
		line("| %s | %s |", row.what, show(row.value))
	}
	line("\n## What was done\n\n| at | |\n|---:|---|")
	for _, n := range r.Notes {
		line("| %.1f s | %s |", n.At.Seconds(), strings.ReplaceAll(n.Text, "|", `\|`))
	}
	if len(a.Findings) > 0 {
		line("\n## Differences\n")
		for _, f := range a.Findings {
			line("- %s", f)
		}
	}
	if len(a.Unchecked)+len(r.Limits) > 0 {
		line("\n## Limits of this report\n")
		for _, l := range r.Limits {
			line("- %s", l)
		}
		for _, reason := range slices.Sorted(maps.Keys(a.Unchecked)) {
			line("- not compared: %s (%d)", reason, a.Unchecked[reason])
		}
	}
	return b.String()
}

// micro formats a latency.
func micro(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return show(d)
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Print prints the figures and the checks, one per line.
func (r *Result) Print(print func(format string, args ...any)) {
	for _, p := range r.Phases {
		print("%-11s %6d events, p50 %s, p99 %s, longest gap %s (longest without an event %s)", p.Name, p.Events, micro(p.P50), micro(p.P99), show(p.Gap), show(p.Idle))
	}
	for _, c := range r.Checks {
		word := "kept  "
		if !c.OK {
			word = "BROKEN"
		}
		text := fmt.Sprintf("%s %s: %s", word, c.Name, c.Measured)
		if c.Limit != "" {
			text += " (at most " + c.Limit + ")"
		}
		print("%s", text)
	}
}
