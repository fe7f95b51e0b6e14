package main

import (
	"strings"

	"github.com/tandem-fn/tandem/eventing/drill"
)

// chart draws the commits per second over time, and the strikes below it.
func (r *report) chart() string {
	c := drill.Chart{Title: "seed " + r.number() + ": " + r.verdict(), End: r.Duration}
	if n := len(r.Samples); n > 0 {
		c.End = max(c.End, r.Samples[n-1].At)
	}
	for i := 1; i < len(r.Samples); i++ {
		a, b := r.Samples[i-1], r.Samples[i]
		c.Points = append(c.Points, drill.Point{At: b.At, Value: float64(b.Committed-a.Committed) / (b.At - a.At).Seconds()})
	}
	for _, s := range r.Strikes {
		c.Spans = append(c.Spans, drill.Span{At: s.At, For: s.For, Label: strings.TrimSpace(s.Kind + " " + s.Target), Detail: s.String()})
	}
	return c.SVG()
}
