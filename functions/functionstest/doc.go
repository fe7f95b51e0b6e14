// Package functionstest tests on a laptop whether a function is fit to run in two
// places at once.
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
// [Check] computes the effects of every event again and again, each time with
// something else that is no business of a function's, and says what made a
// difference. [Golden] says whether the effects are what somebody has read and
// found right; go test -update writes them anew.
//
// # What is promised
//
// What Check finds is a fault: two clusters would compute different effects from
// the same event. It names the event, the first field that differs and the likely
// cause.
//
// # What is not
//
// That it finds nothing proves nothing about events that it was not given. It cannot
// change the architecture of the processor, the version of Go, files, or what a
// server answers. A variable that is read before main is found if it is set where
// the test runs, or has one of the names that differ from cluster to cluster
// (HOSTNAME, REGION, …). Where the system lets nobody set a host name (Linux with
// namespaces does), that is not tried, and the log says so. Reads and writes that
// race are found by go test -race, of which Check's concurrent calls make use.
package functionstest
