// Package sessions carries out the psql sessions of docs/postgres.md, so that what
// stands there is what happens.
//
// A block marked "session" has lines of three kinds. "east=> …" is a statement of
// session east, and what follows is its answer; "-- east waits" says that there is
// none yet, as it waits for a lock; "east: …" is a late answer, after somebody
// else's statement. Sessions keep what they have from block to block.
package sessions
