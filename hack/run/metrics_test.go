package main

import (
	"math"
	"strings"
	"testing"
)

const page = `
# TYPE tandem_source_delivered_total counter
tandem_source_delivered_total{cluster="east",function="flights"} 7
# TYPE tandem_source_receipts_total counter
tandem_source_receipts_total{cluster="east",function="flights",receipt="won"} 4
tandem_source_receipts_total{cluster="east",function="flights",receipt="lost"} 3
# TYPE tandem_source_rejected_total counter
tandem_source_rejected_total{cluster="east",function="flights"} 2
# TYPE tandem_source_failed_total counter
tandem_source_failed_total{cluster="east",function="flights"} 1
# TYPE tandem_source_commit_seconds histogram
tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="0.001"} 1
tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="0.002"} 3
tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="0.004"} 4
tandem_source_commit_seconds_bucket{cluster="east",function="flights",le="+Inf"} 4
tandem_source_commit_seconds_sum{cluster="east",function="flights"} 0.007
tandem_source_commit_seconds_count{cluster="east",function="flights"} 4
`

func parse(t *testing.T, text string) counts {
	t.Helper()
	c, err := parseCounts(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCountsAreReadFromAPage(t *testing.T) {
	t.Parallel()

	c := parse(t, page)
	if c.delivered != 7 || c.won != 4 || c.lost != 3 || c.rejected != 2 || c.failed != 1 || c.commit.count() != 4 {
		t.Errorf("read %+v", c)
	}
	for q, want := range map[float64]float64{0.25: 0.001, 0.5: 0.0015, 0.75: 0.002, 1: 0.004} {
		if got, ok := c.commit.quantile(q); !ok || math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %g is %g, %t; want %g", q, got, ok, want)
		}
	}
	if _, err := parseCounts(strings.NewReader("# nothing here\n")); err == nil {
		t.Error("a page of something else is taken for a source's")
	}
}

func TestQuantileOfNothingIsNone(t *testing.T) {
	t.Parallel()

	if v, ok := (histogram{}).quantile(0.5); ok {
		t.Errorf("quantile of nothing is %g", v)
	}
}

func TestQuantileBeyondTheLastBoundIsThatBound(t *testing.T) {
	t.Parallel()

	h := histogram{bounds: []float64{1, 2, math.Inf(1)}, upTo: []float64{0, 0, 5}}
	if v, ok := h.quantile(0.99); !ok || v != 2 {
		t.Errorf("quantile is %g, %t; want 2", v, ok)
	}
}

func TestCountsSurviveARestart(t *testing.T) {
	t.Parallel()

	var c counter
	c.read(0, counts{})
	c.read(0, parse(t, page))
	c.read(1, counts{}) // a restart
	c.read(1, parse(t, page))
	c.read(2, parse(t, page)) // a restart, with the same counts immediately
	if got := c.total(); got.delivered != 21 || got.won != 12 || got.commit.count() != 12 {
		t.Errorf("total %+v, want three times the page", got)
	}
}

func TestQuantilesAreOfTheMomentIfItHasEnoughValues(t *testing.T) {
	t.Parallel()

	at := func(quick, slow float64) counts {
		return counts{commit: histogram{bounds: []float64{1, 2, math.Inf(1)}, upTo: []float64{quick, quick + slow, quick + slow}}}
	}
	var c counter
	for _, now := range []counts{at(1_000, 0), at(1_000, 500)} {
		c.read(0, now)
		c.tick()
	}
	if v, _ := c.recent().quantile(0.5); v != 1.5 {
		t.Errorf("median of the last second is %g, want 1.5", v)
	}
	c.read(0, at(1_010, 500))
	c.tick()
	if got := c.recent().count(); got != 510 {
		t.Errorf("with few values in the last second %g count, want the 510 of the last two", got)
	}
	for range historySeconds + 1 {
		c.tick()
	}
	if got := c.recent().count(); got != 1_510 {
		t.Errorf("with no values for long %g count, want all 1,510", got)
	}
}
