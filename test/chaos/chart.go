package main

import (
	"fmt"
	"html"
	"strings"
	"time"
)

// chart draws the commits a second over time, and below it what was done when.
func (r *report) chart() string {
	const (
		width, left, right = 1000, 50, 20
		top, height        = 20, 200
		lane, lanes        = 14, 12
	)
	end := r.Duration
	if n := len(r.Samples); n > 0 {
		end = max(end, r.Samples[n-1].At)
	}
	x := func(at time.Duration) float64 {
		return left + (width-left-right)*float64(at)/float64(max(end, time.Second))
	}
	type point struct{ x, rate float64 }
	var points []point
	highest := 1.0
	for i := 1; i < len(r.Samples); i++ {
		a, b := r.Samples[i-1], r.Samples[i]
		rate := float64(b.Committed-a.Committed) / (b.At - a.At).Seconds()
		points = append(points, point{x(b.At), rate})
		highest = max(highest, rate)
	}
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	total := top + height + 30 + lane*lanes + 10
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">`, width, total)
	put(`<rect width="100%%" height="100%%" fill="white"/>`)
	put(`<text x="%d" y="12">commits a second (highest %.0f), seed %d: %s</text>`, left, highest, r.Seed, html.EscapeString(r.verdict()))
	put(`<path d="M%d %d V%d H%d" fill="none" stroke="black"/>`, left, top, top+height, width-right)
	for i := range 5 {
		at := end * time.Duration(i) / 4
		put(`<text x="%.0f" y="%d" text-anchor="middle">%.0f s</text>`, x(at), top+height+14, at.Seconds())
	}
	var line strings.Builder
	for _, p := range points {
		fmt.Fprintf(&line, "%.1f,%.1f ", p.x, top+height-height*p.rate/highest)
	}
	put(`<polyline points="%s" fill="none" stroke="#1f77b4"/>`, strings.TrimSpace(line.String()))
	var busy [lanes]float64
	for _, s := range r.Strikes {
		from, to := x(s.At), max(x(s.At+s.For), x(s.At)+3)
		l := 0
		for l < lanes-1 && busy[l] > from {
			l++
		}
		label := html.EscapeString(s.String())
		busy[l] = max(to, from+float64(len(s.Kind+s.Target))*5.5+8)
		y := top + height + 24 + lane*l
		put(`<g><title>%.1f s: %s</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#d62728" opacity="0.6"/><text x="%.1f" y="%d">%s</text></g>`,
			s.At.Seconds(), label, from, y, to-from, lane-3, to+2, y+lane-4, html.EscapeString(strings.TrimSpace(s.Kind+" "+s.Target)))
	}
	put(`</svg>`)
	return b.String()
}
