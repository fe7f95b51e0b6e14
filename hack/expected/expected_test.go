package expected_test

import (
	"maps"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/hack/expected"
	"github.com/tandem-fn/tandem/hack/feed"
)

// exact returns an outcome without a difference.
func exact(truth map[string]feed.Totals) expected.Outcome {
	o := expected.Outcome{Rows: maps.Clone(truth), Airports: map[string]feed.Totals{}, Outputs: map[string]int64{}}
	for name, t := range truth {
		o.Airports[name] = feed.Totals{Flights: t.Flights, DelayMinutes: t.DelayMinutes}
		if t.Delayed > 0 {
			o.Outputs[name] = t.Delayed
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
	if diff := exact(truth).Differences(truth); len(diff) != 0 {
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
	o.Airports["ABE"] = feed.Totals{Flights: 9, DelayMinutes: -40} // counted twice
	delete(o.Rows, "ABI")                                          // lost
	o.Outputs["ATL"]--
	o.Airports["XXX"] = feed.Totals{Flights: 1}
	want := []string{
		"difference: ABE: airports.flights: 9, should be 8",
		"difference: ABI: rows in flights: 0, should be 5",
		"difference: ABI: minutes of delay in flights: 0, should be 2",
		"difference: ATL: different com.example.flight.delayed events: " + strconv.FormatInt(truth["ATL"].Delayed-1, 10) +
			", should be " + strconv.FormatInt(truth["ATL"].Delayed, 10),
		"difference: XXX: airports.flights: 1, should be 0",
	}
	if diff := cmp.Diff(want, o.Differences(truth)); diff != "" {
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
	o.Own = map[string]feed.Totals{"ORD": own}
	o.Rows["ORD"] = truth["ORD"].Plus(own)
	o.Airports["ORD"] = o.Rows["ORD"]
	o.Outputs["ORD"] += own.Delayed
	if diff := o.Differences(truth); len(diff) != 0 {
		t.Errorf("differences: %q", diff)
	}
}
