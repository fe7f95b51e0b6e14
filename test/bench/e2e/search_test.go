package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestASearchFindsTheHighestRateThatIsHeld(t *testing.T) {
	t.Parallel()

	for _, capacity := range []float64{37, 400, 1000, 1001, 3333, 50_000} {
		for _, start := range []float64{100, 1000, 20_000} {
			for _, factor := range []float64{1.15, 2} {
				t.Run(fmt.Sprintf("%.0f from %.0f by %.2f", capacity, start, factor), func(t *testing.T) {
					t.Parallel()
					s := limited(capacity, capacity)
					s.start, s.factor, s.probes = start, factor, 100
					got, err := s.run(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if got.at > capacity || got.at*s.precision*1.01 < capacity {
						t.Errorf("found %.0f, want %.0f or up to 6 %% less; tried %v", got.at, capacity, s.tried)
					}
				})
			}
		}
	}
}

func TestARateThatOnlyProbesHoldIsNotFound(t *testing.T) {
	t.Parallel()

	s := limited(1000, 900)
	got, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.at > 900 || got.at < 800 {
		t.Errorf("found %.0f, want 800 to 900; tried %v", got.at, s.tried)
	}
}

func TestARateFarBelowThatOfProbesIsFound(t *testing.T) {
	t.Parallel()

	s := limited(6000, 3000)
	got, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.at > 3000 || got.at < 2600 {
		t.Errorf("found %.0f, want 2600 to 3000; tried %v", got.at, s.tried)
	}
}

func TestASearchForNothingIsBounded(t *testing.T) {
	t.Parallel()

	for name, s := range map[string]*search{"none at all": limited(0, 0), "none for the whole time": limited(1000, 0)} {
		_, err := s.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "sustained") {
			t.Errorf("%s: error %v", name, err)
		}
		if len(s.tried) > 2*s.probes+s.confirmations {
			t.Errorf("%s: %d attempts", name, len(s.tried))
		}
	}
}

func TestOneFailedProbeDoesNotEndASearch(t *testing.T) {
	t.Parallel()

	s := limited(4000, 4000)
	try, attempts := s.try, map[float64]int{}
	s.try = func(ctx context.Context, rate float64, whole bool) (*openResult, Probe, error) {
		if attempts[rate]++; attempts[rate] == 1 && !whole {
			return nil, Probe{Rate: rate, Failure: "a bad moment"}, nil
		}
		return try(ctx, rate, whole)
	}
	got, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.at < 3700 {
		t.Errorf("found %.0f, want 3700 to 4000; tried %v", got.at, s.tried)
	}
}

// limited returns a search in which rates up to a limit are sustained.
func limited(probes, whole float64) *search {
	return &search{
		start: 1000, factor: 2, precision: 1.06, probes: 12, confirmations: 7,
		try: func(_ context.Context, rate float64, long bool) (*openResult, Probe, error) {
			r := &openResult{at: rate, computed: 1}
			if long && rate > whole || !long && rate > probes {
				r.gaveUp, r.lag = true, 2*time.Second
			}
			return r, Probe{Rate: rate, Failure: r.failure()}, nil
		},
	}
}

func TestWhyARateIsNotHeld(t *testing.T) {
	t.Parallel()

	held := openResult{duration: 6 * time.Second, lag: 900 * time.Millisecond, endLag: 100 * time.Millisecond, computed: 0.97}
	for want, change := range map[string]func(r *openResult){
		"":                        func(*openResult) {},
		"lag 1.1 s":               func(r *openResult) { r.lag = 1100 * time.Millisecond },
		"lag 300 ms at the end":   func(r *openResult) { r.endLag = 300 * time.Millisecond },
		"a cluster computed 60 %": func(r *openResult) { r.computed = 0.6 },
		"lag 1.0 s":               func(r *openResult) { r.gaveUp, r.lag = true, time.Second },
	} {
		r := held
		change(&r)
		if got := r.failure(); got != want {
			t.Errorf("failure %q, want %q", got, want)
		}
	}
	if r := (openResult{duration: wholeTime, endLag: 900 * time.Millisecond, computed: 1}); r.failure() != "" {
		t.Error("a lag below 1 s in the end of the whole time is a failure")
	}
}

func TestALagIsTheTimeSinceTheFirstEventThatIsNotHandledWasDue(t *testing.T) {
	t.Parallel()

	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := &lagMeter{schedule: schedule{begin: begin, rate: 100, first: 1, events: 400, warm: 100}}
	after := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	for _, o := range []struct {
		at      time.Time
		handled int
		want    time.Duration
	}{
		{after(900), 10, 0},   // warming up
		{after(1500), 150, 0}, // every event that was due
		{after(2000), 150, 500 * time.Millisecond},
		{after(3500), 340, 100 * time.Millisecond},
		{after(3900), 360, 300 * time.Millisecond},
		{after(3950), 400, 0}, // all
		{after(4500), 300, 0}, // after the end
	} {
		if got := m.add(o.at, o.handled); got != o.want {
			t.Errorf("after %s with %d handled: lag %s, want %s", o.at.Sub(begin), o.handled, got, o.want)
		}
	}
	if got := m.highest(); got != 500*time.Millisecond {
		t.Errorf("the highest lag is %s, want 500ms", got)
	}
	if got := m.last(time.Second); got != 300*time.Millisecond {
		t.Errorf("the last lag is %s, want 300ms", got)
	}
}

func TestRowsBringTheRowsWhoseRatesTheyNeed(t *testing.T) {
	t.Parallel()

	var selected []Row
	for _, r := range Rows() {
		if r.Name == Row80 || r.Name == Row50ByHand || r.Name == RowNoStall {
			selected = append(selected, r)
		}
	}
	var names []string
	for _, r := range withRaces(selected) {
		names = append(names, r.Name)
	}
	want := []string{RowRaceByHand, RowRace, Row50ByHand, Row80, RowNoStall}
	if !slices.Equal(names, want) {
		t.Errorf("rows %v, want %v", names, want)
	}
}

func TestTargetsAreComparedWithWhatWasMeasured(t *testing.T) {
	t.Parallel()

	figure := func(f float64) *float64 { return &f }
	text := formatGoals([]Line{
		{Row: RowDefaults, Of: figure(8.1), OfRow: RowByHand},
		{Row: Row80, Latency: &Latency{P50: 9, P999: 101}},
		{Row: RowOrderedTight, Error: "it stands still"},
	})
	for _, want := range []string{
		"e2e rate, × e2e-by-hand 8.10 at least 8.00 reached",
		"latency-80 p50, ms 9.00 at most 10.00 reached",
		"latency-80 p99.9, ms 101.00 at most 100.00 NOT REACHED",
		"ordered-tight seconds – at most 5.00 FAILED",
	} {
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		if !slices.Contains(lines, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
}
