// Command drill runs the failure drills that an operations team runs each quarter: it
// removes a component while events are published, restores it, and reports the effect
// with a verdict. docs/drills.md explains each scenario and the report.
//
//	make drill                           # lists the scenarios
//	make drill SCENARIO=lose-cluster
//	tandem drill                         # watches your deployment while you cause the failure
//
// The exit status is 0 if every guarantee held, 1 if not, 2 if the drill could not be
// run.
//
// Package eventing/drill measures, and explains the reasons.
package main
