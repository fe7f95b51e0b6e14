package main

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/hack/feed"
)

// exact is an outcome without a fault.
func exact(truth map[string]feed.Totals) outcome {
	o := outcome{rows: maps.Clone(truth), airports: map[string]feed.Totals{}, outputs: map[string]int64{}}
	for name, t := range truth {
		o.airports[name] = feed.Totals{Flights: t.Flights, DelayMinutes: t.DelayMinutes}
		if t.Delayed > 0 {
			o.outputs[name] = t.Delayed
		}
	}
	return o
}

func TestExactOutcomeHasNoDifference(t *testing.T) {
	t.Parallel()

	truth, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	if diff := exact(truth).differences(truth); len(diff) != 0 {
		t.Errorf("differences: %q", diff)
	}
}

func TestEachDifferenceIsNamed(t *testing.T) {
	t.Parallel()

	truth, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	o := exact(truth)
	o.airports["ABE"] = feed.Totals{Flights: 9, DelayMinutes: -40} // counted twice
	delete(o.rows, "ABI")                                          // lost
	o.outputs["ATL"]--
	o.airports["XXX"] = feed.Totals{Flights: 1}
	want := []string{
		"difference: ABE: airports.flights: 9, should be 8",
		"difference: ABI: rows in flights: 0, should be 5",
		"difference: ABI: minutes of delay in flights: 0, should be 2",
		"difference: ATL: different com.example.flight.delayed events: " + count(float64(truth["ATL"].Delayed-1)) +
			", should be " + count(float64(truth["ATL"].Delayed)),
		"difference: XXX: airports.flights: 1, should be 0",
	}
	if diff := cmp.Diff(want, o.differences(truth)); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func TestOwnFlightsCountOnTopOfTheTruth(t *testing.T) {
	t.Parallel()

	truth, err := feed.Truth()
	if err != nil {
		t.Fatal(err)
	}
	own := feed.Totals{Flights: 1, DelayMinutes: 75, Delayed: 1}
	o := exact(truth)
	o.own = map[string]feed.Totals{"ORD": own}
	o.rows["ORD"] = truth["ORD"].Plus(own)
	o.airports["ORD"] = o.rows["ORD"]
	o.outputs["ORD"] += own.Delayed
	if diff := o.differences(truth); len(diff) != 0 {
		t.Errorf("differences: %q", diff)
	}
}
