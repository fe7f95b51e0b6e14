// Package drill measures and judges the cost of an interruption of a deployment: it
// watches a deployment while an operator interrupts a part of it, and reports how long
// commits paused, whether events are missing, and how long the clusters took to catch
// up. docs/drills.md explains the report.
//
// # Design
//
// The figures are not what this program observed during the drill, but are read
// afterwards: the arrival of each event from the stream, and the commit of its
// transaction from the ledger, as the database recorded it (track_commit_timestamp). So
// a pause of this program is not a gap. Package audit compares the ledger and everything
// else.
package drill
