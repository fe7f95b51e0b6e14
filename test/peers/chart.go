package main

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// chart draws the events per second of each row, with a line from the lowest round
// to the highest.
func (r *report) chart() string {
	const width, left, right, top, lane = 1000, 240, 80, 30, 26
	highest := 1.0
	for _, row := range r.Rows {
		highest = max(highest, slices.Max(row.rates()))
	}
	x := func(rate float64) float64 { return left + (width-left-right)*rate/highest }
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, top+lane*len(r.Rows)+10)
	put(`<rect width="100%%" height="100%%" fill="white"/>`)
	put(`<text x="%d" y="18">distinct events a second, median of %d rounds, and the lowest and the highest</text>`, left, len(r.Rows[0].Rounds))
	for i, row := range r.Rows {
		y := top + lane*i
		color := "#7f7f7f"
		if row.peer.consumer == "" {
			color = "#1f77b4"
		}
		put(`<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+15, html.EscapeString(row.Title))
		put(`<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y+2, x(row.rate())-left, lane-8, color)
		put(`<path d="M%.1f %d H%.1f" stroke="black"/>`, x(slices.Min(row.rates())), y+2+(lane-8)/2, x(slices.Max(row.rates())))
		put(`<text x="%.1f" y="%d">%s</text>`, x(slices.Max(row.rates()))+6, y+15, thousands(row.rate()))
	}
	put(`</svg>`)
	return b.String()
}
