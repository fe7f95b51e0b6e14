package functionstest_test

import (
	"testing"

	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

// A test that a function computes the same effects in other processes, time zones,
// environments and orders.
func ExampleCheck() {
	_ = func(t *testing.T) { // TestSameEffectsEverywhere
		events := functionstest.Events(t, "testdata/events.json")
		functionstest.Check(t, flights.Function(), events)
	}
}

// A test that a function's effects are those of a file that was reviewed. To write the
// file: go test -update.
func ExampleGolden() {
	_ = func(t *testing.T) { // TestEffectsAreTheGoldenOnes
		events := functionstest.Events(t, "testdata/events.json")
		functionstest.Golden(t, flights.Function(), events, "testdata/flights.golden")
	}
}
