// Package drill measures what an interruption of a deployment costs, and judges it: it
// watches a deployment while someone takes something away from it, and reports how long
// commits paused, whether events are missing, and how long the clusters took to catch
// up. docs/drills.md explains the report.
//
// # Design
//
// The figures do not come from what this program saw meanwhile, but are read
// afterwards: from the stream, when each event arrived, and from the ledger, when its
// transaction was committed, by the database's own record (track_commit_timestamp). So a
// pause of this program is no gap. Package audit judges what is in the ledger and where.
package drill
