// Command chaos runs two clusters over a database and a three-node JetStream, each part
// a process of its own, and strikes them: processes are killed and stopped, whole
// clusters go and come back with another version of a function, the database crashes,
// stops writing or refuses connections, the stream loses its leader, connections are
// cut, cut one way, silent, slowed, lossy or reset in mid-message, disks are full, clocks
// an hour off, events come again and again, some can never work, end the function's process,
// hang, or have an output that is too large, and the table of a type is missing for some
// time. What happens when follows from a seed.
//
// Afterwards everything is mended, and when all is through, looked at: package audit
// compares stream, ledger, tables, outputs and dead letters, and this program the sums
// with what it fed. A report says what was done and what was found, for people
// (Markdown, with a chart as SVG) and programs (JSON).
//
//	make chaos SEED=7 DURATION=1m
//	make chaos PLANT=early-ack        # must find something, or it is blind
//
// The exit status is 0 only without a violation.
//
// # Limits
//
// It strikes from within one machine: between the parts are proxies, so a lost packet is
// the pause until it would be sent again. Full disks are small ones in memory, which root
// on Linux can mount; else the report says that they were not full. A clock that is off is
// off from the start of a process on: its parts are built with another package time
// (deployment.BuildWrong), since nothing can be put between a Go program and its clock.
package main
