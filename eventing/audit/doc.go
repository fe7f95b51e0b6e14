// Package audit compares the database with the stream.
//
// It reads the stream of inputs, runs the functions again in memory over each event,
// and compares the results with the ledger (by the digest of the effects), the tables
// (row by row), the stream of outputs (event by event) and the dead letters. Everything
// missing, extra or different is listed as a [Finding].
//
// It may be used while functions and sources run. Ledger, tables, outbox and
// checkpoints are read in one snapshot, and the stream after it: an event that is in
// the snapshot is in the stream, and an event that is in the stream and not yet
// acknowledged in the snapshot is under way, not missing.
//
// # Limits
//
// Without the beginning of the stream there are rows that no event explains and
// counters with an unknown past: then only the expected rows are looked up, and
// counters are not compared. If several events write different values to the same
// column, and the order of the commits decides, no value is expected. The effects of a
// function's own statements are unknown, and so are the tables to which they wrote.
// [Report.Unchecked] counts these cases.
//
// # Design
//
// The functions are linked into the program, so it must have the version that committed
// the events. An event that another version committed is counted in
// [Report.OtherVersion], and a different digest is no finding.
//
// Expected rows are sent to the server, which compares them: only the server knows the
// value of a text in a column's type.
package audit
