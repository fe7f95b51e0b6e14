// Command drill does what an operations team does each quarter: it takes something
// away while events come, gives it back, and says what that cost, with a verdict.
// docs/drills.md explains each scenario and the report.
//
//	make drill                           # lists the scenarios
//	make drill SCENARIO=lose-cluster
//	go run ./test/drill --target         # watches your deployment while you pull the plugs
//
// The exit status is 0 if everything that was promised was kept, 1 if not, 2 if the
// drill could not be done.
//
// # Design
//
// What happened is not taken from what this program saw while it happened, but read
// afterwards: from the stream, when each event came, and from the ledger, when its
// transaction was committed, by the database's own record of that
// (track_commit_timestamp). So a pause of this program is no gap. What is in the ledger
// and where is for package audit to judge, which chaos and verify use too.
package main
