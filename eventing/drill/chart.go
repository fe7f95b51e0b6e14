package drill

import (
	"fmt"
	"html"
	"strings"
	"time"
)

// Chart is a drawing of commits over time. Times count from the beginning.
type Chart struct {
	// Title is shown at the top.
	Title string

	// End is the end of the time axis.
	End time.Duration

	// Points are commits a second, in order.
	Points []Point

	// Spans are drawn below, each in a lane with room for it.
	Spans []Span

	// Marks are vertical lines.
	Marks []Span
}

// Point is a value at a time.
type Point struct {
	At    time.Duration
	Value float64
}

// Span is a period, or, if For is zero, a moment.
type Span struct {
	At, For time.Duration
	Label   string // short
	Detail  string // the tooltip
}

// SVG returns the drawing.
func (c Chart) SVG() string {
	const (
		width, left, right = 1000, 50, 20
		top, height        = 20, 200
		lane, lanes        = 14, 12
	)
	end := max(c.End, time.Second)
	x := func(at time.Duration) float64 {
		return left + (width-left-right)*float64(at)/float64(end)
	}
	highest := 1.0
	for _, p := range c.Points {
		highest = max(highest, p.Value)
	}
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	used := min(lanes, len(c.Spans))
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">`, width, top+height+40+lane*used)
	put(`<rect width="100%%" height="100%%" fill="white"/>`)
	put(`<text x="%d" y="12">commits a second (highest %.0f): %s</text>`, left, highest, html.EscapeString(c.Title))
	put(`<path d="M%d %d V%d H%d" fill="none" stroke="black"/>`, left, top, top+height, width-right)
	for i := range 5 {
		at := end * time.Duration(i) / 4
		put(`<text x="%.0f" y="%d" text-anchor="middle">%.0f s</text>`, x(at), top+height+14, at.Seconds())
	}
	for _, m := range c.Marks {
		put(`<g><title>%.2f s: %s</title><path d="M%.1f %d V%d" stroke="#d62728" stroke-dasharray="3"/><text x="%.1f" y="%d" fill="#d62728">%s</text></g>`,
			m.At.Seconds(), html.EscapeString(m.Detail), x(m.At), top, top+height, x(m.At)+2, top+10, html.EscapeString(m.Label))
	}
	var line strings.Builder
	for _, p := range c.Points {
		fmt.Fprintf(&line, "%.1f,%.1f ", x(p.At), top+height-height*p.Value/highest)
	}
	put(`<polyline points="%s" fill="none" stroke="#1f77b4"/>`, strings.TrimSpace(line.String()))
	var busy [lanes]float64
	for _, s := range c.Spans {
		from, to := x(s.At), max(x(s.At+s.For), x(s.At)+3)
		l := 0
		for l < lanes-1 && busy[l] > from {
			l++
		}
		busy[l] = max(to, from+float64(len(s.Label))*5.5+8)
		y := top + height + 24 + lane*l
		put(`<g><title>%.1f s: %s</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#d62728" opacity="0.6"/><text x="%.1f" y="%d">%s</text></g>`,
			s.At.Seconds(), html.EscapeString(s.Detail), from, y, to-from, lane-3, to+2, y+lane-4, html.EscapeString(s.Label))
	}
	put(`</svg>`)
	return b.String()
}
