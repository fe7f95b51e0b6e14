package e2e

import (
	"fmt"
	"html"
	"strings"
)

// modeFigure is a figure that is compared between the modes.
type modeFigure struct {
	column string // of the table
	title  string // of the picture; empty for a figure that is not in it
	format string
	suffix string // of the row that has it
	of     func(l Line) *float64
}

func modeFigures() []modeFigure {
	work := func(figure func(w Work) float64) func(l Line) *float64 {
		return func(l Line) *float64 {
			if l.Work == nil {
				return nil
			}
			f := figure(*l.Work)
			return &f
		}
	}
	return []modeFigure{
		{column: "events/s", title: "highest rate, events/s", format: "%.0f", of: rate},
		{column: "of_race", format: "%.2f", of: ratio},
		{column: "computations", format: "%.2f", suffix: suffix50, of: work(func(w Work) float64 { return w.Computations })},
		{column: "cpu_us", title: "processor time of everything, µs per event", format: "%.0f", suffix: suffix50, of: cpuSum},
		{column: "function_us", format: "%.0f", suffix: suffix50, of: cpuOf("function")},
		{column: "postgres_us", format: "%.0f", suffix: suffix50, of: cpuOf("postgres")},
		{column: "transactions", title: "transactions per event", format: "%.2f", suffix: suffix50, of: work(func(w Work) float64 { return w.Transactions })},
		{column: "wal_bytes", format: "%.0f", suffix: suffix50, of: work(func(w Work) float64 { return w.WALBytes })},
		{column: "site_bytes", title: "between the sites, bytes per event", format: "%.0f", suffix: suffix50, of: work(func(w Work) float64 { return w.SiteBytes })},
		{column: "p50_ms", format: "%.1f", suffix: suffix50, of: p50},
		{column: "p99.9_ms", title: "p99.9 when all is well, ms", format: "%.1f", suffix: suffix50, of: p999},
		{column: "nap_p99.9", format: "%.1f", suffix: suffixNap, of: p999},
		{column: "freeze_p99.9", title: "p99.9, one process stops for 300 ms at times, ms", format: "%.1f", suffix: suffixFreeze, of: p999},
		{column: "kill_p50", format: "%.1f", suffix: suffixKill, of: p50},
		{column: "kill_p99.9", title: "p99.9 around the loss of a cluster, ms", format: "%.1f", suffix: suffixKill, of: p999},
	}
}

func cpuOf(kind string) func(l Line) *float64 {
	return func(l Line) *float64 {
		used, known := l.CPU[kind]
		if !known {
			return nil
		}
		return &used
	}
}

func cpuSum(l Line) *float64 {
	if len(l.CPU) == 0 {
		return nil
	}
	sum := 0.0
	for _, used := range l.CPU {
		sum += used
	}
	return &sum
}

// ofMode returns the figure of a mode; nil if it was not measured.
func (f modeFigure) ofMode(m *mode, lines []Line) *float64 {
	for _, l := range lines {
		if l.Row == "burn-"+m.name+f.suffix {
			return f.of(l)
		}
	}
	return nil
}

// formatModes writes a comparison of the modes, if any was measured.
func formatModes(text *strings.Builder, lines []Line) {
	figures := modeFigures()
	header := []string{"mode"}
	for _, f := range figures {
		header = append(header, f.column)
	}
	table, measured := [][]string{header}, 0
	for _, m := range modes() {
		cells, found := []string{m.name}, 0
		for _, f := range figures {
			cell := "–"
			if figure := f.ofMode(m, lines); figure != nil {
				cell, found = fmt.Sprintf(f.format, *figure), 1
			}
			cells = append(cells, cell)
		}
		table = append(table, cells)
		measured += found
	}
	if measured < 2 { // there is nothing to compare it with
		return
	}
	fmt.Fprintf(text, "\nthe modes beside each other, %s of processor time per event in the function; costs are per event\n", burnTime)
	row, flush := newTable(text)
	defer flush()
	for _, cells := range table {
		row(cells...)
	}
}

// ModesPicture returns a comparison of the modes as SVG.
func ModesPicture(lines []Line) string {
	const width, half, left, top, lane, gap = 1000, 500, 80, 30, 22, 40
	var panels []modeFigure
	for _, f := range modeFigures() {
		if f.title != "" {
			panels = append(panels, f)
		}
	}
	height := lane*len(modes()) + gap
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, top+height*((len(panels)+1)/2))
	put(`<rect width="100%%" height="100%%" fill="white"/>`)
	for i, f := range panels {
		x, y := half*(i%2), top+height*(i/2)
		put(`<text x="%d" y="%d" font-weight="bold">%s</text>`, x+left, y-8, html.EscapeString(f.title))
		highest := 0.0
		for _, m := range modes() {
			if figure := f.ofMode(m, lines); figure != nil {
				highest = max(highest, *figure)
			}
		}
		for j, m := range modes() {
			at := y + lane*j
			put(`<text x="%d" y="%d" text-anchor="end">%s</text>`, x+left-8, at+14, m.name)
			figure := f.ofMode(m, lines)
			if figure == nil {
				put(`<text x="%d" y="%d">not measured</text>`, x+left+6, at+14)
				continue
			}
			color := "#7f7f7f"
			if m == modeShare {
				color = "#1f77b4"
			}
			long := 0.0
			if highest > 0 {
				long = (half - left - 70) * *figure / highest
			}
			put(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, x+left, at+2, long, lane-6, color)
			put(`<text x="%.1f" y="%d">`+f.format+`</text>`, float64(x+left)+long+6, at+14, *figure)
		}
	}
	put(`</svg>`)
	return b.String()
}
