// Command drill does what an operations team does each quarter: it takes something
// away while events come, gives it back, and says what that cost, with a verdict.
// docs/drills.md explains each scenario and the report.
//
//	make drill                           # lists the scenarios
//	make drill SCENARIO=lose-cluster
//	tandem drill                         # watches your deployment while you pull the plugs
//
// The exit status is 0 if everything that was promised was kept, 1 if not, 2 if the
// drill could not be done.
//
// Package eventing/drill measures, and has the reasons.
package main
