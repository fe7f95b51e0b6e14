// Package audit finds out whether the database says what the stream says.
//
// It reads the stream of inputs, runs the functions again in memory over each
// event, and compares with what is there: the ledger by the digest of the effects,
// the tables row by row, the stream of outputs event by event, the dead letters.
// What is missing, extra or different it lists as a [Finding].
//
// It may be used while everything runs. Ledger, tables, outbox and progress are read
// in one snapshot, and the stream behind it: an event that is in the snapshot is in
// the stream, and one that is in the stream and not yet acknowledged in the snapshot
// is under way, not missing.
//
// # What it cannot know
//
// Without the beginning of the stream there are rows that nothing explains and
// counters with an unknown past: rows are then only looked for, and counters not
// compared. Of several events that write different values to the same column, and
// of which the order of the commits decides, no value is expected. What a statement
// of a function's own has written is not known, nor are the tables that it wrote to.
// How often any of this was so is in [Report.Unchecked].
//
// # Design
//
// The functions are the ones linked into the program, so it must be of the version
// that committed: an event that another version committed is counted in
// [Report.OtherVersion], and its digest is not held against it.
//
// Expected rows go to the server, which compares: only it knows what a text means
// as a value of a column's type.
package audit
