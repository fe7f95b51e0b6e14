package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/test/bench/harness"
)

// goal is the required ratio of Tandem's rate to the best of the others.
const goal = 5

// report holds the measurements.
type report struct {
	Begun    time.Time     `json:"begun"`
	Took     time.Duration `json:"took_ns"`
	Setup    []string      `json:"setup"`
	Versions []string      `json:"versions"`
	Events   int           `json:"events"`
	Quick    bool          `json:"quick"`
	Rate     int           `json:"latency_rate"`
	CutShort string        `json:"cut_short,omitempty"`
	Note     string        `json:"note,omitempty"`

	// Continued is the time at which missing measurements were added; zero if
	// none were.
	Continued time.Time `json:"continued,omitzero"`
	Rows      []*row    `json:"rows"`
}

// worthwhile reports whether every row has been measured at least once.
func (r *report) worthwhile() bool {
	for _, row := range r.Rows {
		if len(row.Rounds) == 0 {
			return false
		}
	}
	return len(r.Rows) > 0
}

// describe returns lines that describe the environment.
func (d *deployment) describe(ctx context.Context) ([]string, error) {
	var version string
	if err := d.Admin.QueryRow(ctx, "select current_setting('server_version')").Scan(&version); err != nil {
		return nil, fmt.Errorf("read the server's version: %w", err)
	}
	var list string
	if err := d.Admin.QueryRow(ctx, `select string_agg(name || ' = ' || current_setting(name), ', ' order by name)
	|| (select ', lz4 = ' || case when 'lz4' = any(enumvals) then 'on' else 'off' end from pg_settings where name = 'default_toast_compression')
from pg_settings where name in ('shared_buffers', 'max_wal_size', 'max_connections', 'fsync', 'synchronous_commit', 'full_page_writes',
	'wal_level', 'track_commit_timestamp', 'commit_delay', 'data_checksums')`).Scan(&list); err != nil {
		return nil, fmt.Errorf("read the server's settings: %w", err)
	}
	commit, err := d.CommitTime(ctx, time.Now)
	if err != nil {
		return nil, err
	}
	return []string{
		"measured on " + harness.Cores() + ", clients and servers together",
		fmt.Sprintf("PostgreSQL %s, a commit takes %s: %s", version, commit.Round(time.Microsecond), list),
		fmt.Sprintf("NATS %s, one server, streams in files, sync_interval %s", d.NC.ConnectedServerVersion(), d.NATS[0].SyncInterval()),
		fmt.Sprintf("%s, GOMAXPROCS %d", runtime.Version(), runtime.GOMAXPROCS(0)),
	}, nil
}

// versions returns the versions of the compared modules.
func versions() []string {
	var list []string
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, prefix := range []string{"github.com/ThreeDotsLabs/", "github.com/dbos-inc/", "github.com/riverqueue/river", "github.com/jackc/pgx/v5", "github.com/nats-io/nats.go"} {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, prefix) && (prefix != "github.com/riverqueue/river" || m.Path == prefix) {
				list = append(list, m.Path+" "+m.Version)
			}
		}
	}
	return list
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// rate returns the median of the rounds; lowest and highest return the extremes.
func (r *row) rate() float64 { return median(r.rates()) }

func (r *row) rates() []float64 {
	var list []float64
	for _, t := range r.Rounds {
		list = append(list, t.EventsPerSecond)
	}
	return list
}

// best returns the fastest row of Tandem, or of the others; nil if there is none.
func (r *report) best(tandem bool) *row {
	var best *row
	for _, line := range r.Rows {
		if (line.peer.consumer == "") == tandem && (best == nil || line.rate() > best.rate()) {
			best = line
		}
	}
	return best
}

// verdict compares Tandem with the best of the others, by the median of the ratios
// within the rounds.
func (r *report) verdict() string {
	ours, theirs := r.best(true), r.best(false)
	if ours == nil || theirs == nil {
		return "Tandem and others were not measured together."
	}
	var ratios []float64
	for i := range min(len(ours.Rounds), len(theirs.Rounds)) {
		ratios = append(ratios, ours.Rounds[i].EventsPerSecond/theirs.Rounds[i].EventsPerSecond)
	}
	ratio := median(ratios)
	text := fmt.Sprintf("%s does %s events a second, the best of the others, %s, %s: %.1f times as many in the same round (goal: %d).",
		ours.Title, thousands(ours.rate()), theirs.Title, thousands(theirs.rate()), ratio, goal)
	switch {
	case ratio >= goal:
		return text + " **The goal is reached.**"
	case ratio >= 1:
		return text + " **Tandem is ahead, but the goal is not reached.**"
	}
	return text + fmt.Sprintf(" **%s is ahead.**", theirs.Title)
}

// readReport reads the JSON of a report.
func readReport(ctx context.Context, file string) (*report, error) {
	file, err := fromRoot(ctx, file)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read report %s: %w", file, err)
	}
	for _, row := range r.Rows {
		i := slices.IndexFunc(allPeers(), func(p peer) bool { return p.name == row.Name })
		if i < 0 {
			return nil, fmt.Errorf("read report %s: row %q no longer exists: measure again", file, row.Name)
		}
		row.peer = allPeers()[i]
	}
	if !r.worthwhile() {
		return nil, fmt.Errorf("read report %s: not every row has been measured", file)
	}
	return &r, nil
}

// fromRoot resolves a relative path against the clone's root, in which make runs.
func fromRoot(ctx context.Context, path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	root, err := devcluster.ModuleRoot(ctx)
	return filepath.Join(root, path), err
}

// beside compares Tandem's best row with the best of each of the others.
func (r *report) beside() string {
	ours := r.best(true)
	if ours == nil {
		return ""
	}
	best := map[string]*row{}
	var order []string
	for _, line := range r.Rows {
		name, _, _ := strings.Cut(line.Title, ",")
		switch known := best[name]; {
		case line.peer.consumer == "":
		case known == nil:
			order = append(order, name)
			best[name] = line
		case line.rate() > known.rate():
			best[name] = line
		}
	}
	var list []string
	for _, name := range order {
		list = append(list, fmt.Sprintf("%.1f times the best of %s", ours.rate()/best[name].rate(), name))
	}
	return fmt.Sprintf("By the medians, %s does %s.", ours.Title, strings.Join(list, ", "))
}

// write writes the report into a folder, and returns the folder.
func (r *report) write(ctx context.Context, dir string) (string, error) {
	if dir == "" {
		dir = filepath.Join(".tandem", "peers")
	}
	dir, err := fromRoot(ctx, dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write report: %w", err)
	}
	for name, text := range map[string]string{"peers.json": string(data) + "\n", "peers.md": r.markdown(), "peers.svg": r.chart()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", fmt.Errorf("write report: %w", err)
		}
	}
	return dir, nil
}

// thousands formats a number for people.
func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
