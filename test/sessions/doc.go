// Package sessions executes the psql sessions of docs/postgres.md, and checks that
// their output is as documented.
//
// A block marked "session" has lines of three kinds. "east=> …" is a statement of
// session east, followed by its answer; "-- east waits" means that there is no
// answer yet, because it waits for a lock; "east: …" is a late answer, after a
// statement of another session. Sessions keep their state from block to block.
package sessions
