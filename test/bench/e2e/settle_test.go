package e2e

import (
	"testing"
	"time"
)

func TestAStrikeIsOverWhenFewForeignEventsAreComputedForGood(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 11, 30, 9, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name    string
		foreign []float64 // after each half second
		after   time.Duration
		highest float64
	}{
		{"nothing", []float64{0, 0, 0, 0, 0, 0, 0, 0}, 0, 0},
		{"little for ever", []float64{0, 2, 4, 6, 8, 10, 12, 14}, 0, 0.04},
		{"in the strike only", []float64{0, 50, 50, 50, 50, 50, 50, 50}, 0, 0.5},
		{"for a second and a half", []float64{0, 0, 0, 30, 60, 60, 60, 60, 60, 60}, 1500 * time.Millisecond, 0.6},
		{"once more in the end", []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 20}, 3500 * time.Millisecond, 0.2},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			m := &settleMeter{rate: 100, window: time.Second, struck: begin.Add(time.Second)}
			for i, n := range test.foreign {
				m.observed = append(m.observed, observedForeign{at: begin.Add(time.Duration(i) * 500 * time.Millisecond), foreign: n})
			}
			s, err := m.result()
			if err != nil {
				t.Fatal(err)
			}
			if s.after != test.after || s.highest != test.highest {
				t.Errorf("%+v, want %s and %v", *s, test.after, test.highest)
			}
		})
	}
	for name, m := range map[string]*settleMeter{
		"no strike":  {rate: 100, window: time.Second, observed: []observedForeign{{at: begin}, {at: begin.Add(2 * time.Second)}}},
		"no seconds": {rate: 100, window: time.Second, struck: begin, observed: []observedForeign{{at: begin}, {at: begin.Add(time.Second / 2)}}},
	} {
		if s, err := m.result(); err == nil {
			t.Errorf("%s: %+v, want an error", name, *s)
		}
	}
}
