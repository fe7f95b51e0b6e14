package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/audit"
)

// maxViolations bounds the reported violations of one run.
const maxViolations = 100

// sample is the number of committed events at a time.
type sample struct {
	At        time.Duration `json:"at"`
	Committed int64         `json:"committed"`
}

// report holds the strikes and the findings.
type report struct {
	Seed     uint64        `json:"seed"`
	Duration time.Duration `json:"duration"`
	Rate     float64       `json:"rate"`
	Plant    string        `json:"plant,omitempty"`
	Only     string        `json:"only,omitempty"`
	Hedge    string        `json:"hedge"`
	Begun    time.Time     `json:"begun"`

	Strikes []strike `json:"strikes"`
	Samples []sample `json:"samples"`

	// Drained is the time from the last strike until nothing was under way,
	// Events the number of distinct events that can succeed.
	Drained time.Duration `json:"drained"`
	Events  int64         `json:"events"`

	Rollbacks int64 `json:"rollbacks"`
	Deadlocks int64 `json:"deadlocks"`

	Audit      audit.Report `json:"audit"`
	Violations []string     `json:"violations"`
}

func (r *report) violate(format string, args ...any) {
	if len(r.Violations) < maxViolations {
		r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
	}
}

func (r *report) number() string { return strconv.FormatUint(r.Seed, 10) }

// name returns the name of the report's folder.
func (r *report) name() string {
	name := fmt.Sprintf("%s-seed-%d", r.Begun.UTC().Format("20060102-150405"), r.Seed)
	if r.Plant != "" {
		name += "-" + r.Plant
	}
	return name
}

// write writes report.md, report.json and chart.svg into a new folder in dir, and
// returns that folder.
func (r *report) write(dir string) (string, error) {
	dir = filepath.Join(dir, r.name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	for name, text := range map[string]string{"report.json": string(data) + "\n", "report.md": r.markdown(), "chart.svg": r.chart()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", fmt.Errorf("write report: %w", err)
		}
	}
	return dir, nil
}

func (r *report) verdict() string {
	if len(r.Violations) == 0 {
		return "No violation."
	}
	return fmt.Sprintf("%d violations.", len(r.Violations))
}

func (r *report) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Chaos, seed %d\n", r.Seed)
	line("**%s** %s, %s of strikes at %g events a second.", r.verdict(), r.Begun.UTC().Format(time.RFC3339), r.Duration, r.Rate)
	if r.Plant != "" {
		line("A fault was planted: %s. Violations are expected.", r.Plant)
	}
	args := ""
	var flags []string
	if r.Hedge != "0" {
		flags = append(flags, "--hedge "+r.Hedge)
	}
	if r.Only != "" {
		flags = append(flags, fmt.Sprintf("--only '%s'", r.Only))
	}
	if len(flags) > 0 {
		args = fmt.Sprintf(" ARGS=\"%s\"", strings.Join(flags, " "))
	}
	line("\nTo repeat the run: `make chaos SEED=%d DURATION=%s%s`\n\n![Commits per second, and the injected faults](chart.svg)\n", r.Seed, r.Duration, args)
	if len(r.Violations) > 0 {
		line("## Violations\n")
		for _, v := range r.Violations {
			line("- %s", v)
		}
		line("")
	}
	line("## Findings\n\n| | |\n|---|---:|")
	for _, row := range []struct {
		what string
		n    int64
	}{
		{"messages in the stream of inputs", r.Audit.Messages},
		{"of them repeated", r.Audit.Repeated},
		{"different events", r.Audit.Events},
		{"handled, once", r.Audit.Handled},
		{"of them by another version of the function", r.Audit.OtherVersion},
		{"dead letters with a reason", r.Audit.Dead},
		{"rows compared", r.Audit.Rows},
		{"different outputs", r.Audit.Outputs},
		{"outputs repeated, with the same source and id", r.Audit.Duplicates},
		{"rollbacks of the database", r.Rollbacks},
		{"deadlocks", r.Deadlocks},
	} {
		line("| %s | %d |", row.what, row.n)
	}
	line("| time until everything was processed, after the last fault | %s |", r.Drained.Round(100*time.Millisecond))
	line("| longest observed time without a commit | %s |", r.longestGap().Round(100*time.Millisecond))
	line("\n## Injected faults\n\n| at | |\n|---:|---|")
	for _, s := range r.Strikes {
		text := s.String()
		if s.Failed != "" {
			text += " (not done: " + s.Failed + ")"
		}
		line("| %.1f s | %s |", s.At.Seconds(), text)
	}
	return b.String()
}

// longestGap returns the longest time in which the samples did not increase while
// events were published.
func (r *report) longestGap() time.Duration {
	var longest time.Duration
	since := sample{}
	for _, s := range r.Samples {
		if s.Committed > since.Committed {
			since = s
		} else if s.At < r.Duration {
			longest = max(longest, s.At-since.At)
		}
	}
	return longest
}
