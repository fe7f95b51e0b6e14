package functionstest_test

import (
	"testing"

	"github.com/tandem-fn/tandem/functions/flights"
	"github.com/tandem-fn/tandem/functions/functionstest"
)

// A test that a function computes the same effects in other processes, time zones,
// environments and orders.
func ExampleCheck() {
	var t *testing.T // that of TestSameEffectsEverywhere
	events := functionstest.Events(t, "testdata/events.json")
	functionstest.Check(t, flights.Function(), events)
}

// A test that a function's effects are those in a file that was reviewed. To write the
// file: go test -update.
func ExampleGolden() {
	var t *testing.T // that of TestEffectsAreTheGoldenOnes
	events := functionstest.Events(t, "testdata/events.json")
	functionstest.Golden(t, flights.Function(), events, "testdata/flights.golden")
}
