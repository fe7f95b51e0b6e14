// Package functionstest tests on a laptop whether a function can run in two places
// at once.
//
//	func TestSameEffectsEverywhere(t *testing.T) {
//		events := functionstest.Events(t, "testdata/events.json")
//		functionstest.Check(t, orders.Function(), events)
//	}
//
//	func TestEffectsAreTheGoldenOnes(t *testing.T) {
//		events := functionstest.Events(t, "testdata/events.json")
//		functionstest.Golden(t, orders.Function(), events, "testdata/orders.golden")
//	}
//
// [Check] computes the effects of every event repeatedly, each time with a change of
// something that must not affect a function, and reports which change made a
// difference. [Golden] compares the effects with a file that a person has reviewed;
// go test -update rewrites the file.
//
// # Guarantees
//
// A failure of Check is a fault of the function: two clusters would compute
// different effects from the same event. It reports the event, the first field that
// differs and the likely cause.
//
// # Not guaranteed
//
// A success proves nothing about events that were not passed. Check cannot change
// the architecture of the processor, the version of Go, files, or the answers of a
// server. It detects a variable that is read before main only if the variable is set
// where the test runs, or has one of the names that usually differ between clusters
// (HOSTNAME, REGION, …). If the system does not allow setting a host name (Linux
// with namespaces does), that check is skipped, and the log reports it. To detect
// data races use go test -race, which benefits from Check's concurrent calls.
package functionstest
