// Command chaos runs two clusters over a database and a three-node JetStream, each component
// a process of its own, and injects faults (strikes). Processes are killed and stopped,
// whole clusters are lost and return with another version of a function, the database
// crashes, stops writing or refuses connections, the stream loses its leader, connections
// are cut, cut one way, silent, slowed, lossy or reset in mid-message, disks are full,
// clocks are an hour off. Events are repeated; some can never succeed, end the function's
// process, hang, or have an output that is too large; and the table of a type is missing for
// some time. A seed determines the schedule.
//
// Afterwards chaos undoes all strikes, waits until everything is processed, and checks the
// result: package audit compares stream, ledger, tables, outputs and dead letters, and this
// program compares the sums with the events that it published. A report lists the strikes
// and the findings, for people (Markdown, with a chart as SVG) and programs (JSON).
//
//	make chaos SEED=7 DURATION=1m
//	make chaos PLANT=early-ack        # must find something, or chaos does not work
//
// The exit status is 0 only without a violation.
//
// # Limits
//
// It runs on one machine: there are proxies between the components, so a lost packet is a
// pause of the length of a retransmission. Full disks are small disks in memory, which root
// on Linux can mount; otherwise the report states that they were not full. A wrong clock is
// wrong from the start of a process: its components are built with another package time
// (deployment.BuildWrong), because a Go program's access to the clock cannot be intercepted.
package main
