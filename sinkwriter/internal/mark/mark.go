// Package mark marks transactions as Tandem's own, for as long as they last: by an advisory
// lock that ends with the transaction, and that nobody waits for. It is in pg_locks, whatever
// pooler is in between. Only sessions with the mark are ended when they hold a lock that
// another one waits for, and do not continue.
package mark

import "time"

// Class is the first key of the lock, also in SQL: in the settings of a writer's transactions,
// whose second key is a number by which the sessions that block them are found, and in function
// tandem.end_session.
const Class = 1_413_566_020

// SQL marks a transaction that does not look for the sessions that block it.
const SQL = `select pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, 0)`

// tripBits are the bits of a number that hold a round trip in milliseconds, 4 s at most.
const tripBits = 12

// Number returns the number of a mark, by which the sessions that block it are found: a positive
// one of an id, and of the round trip between the session and its client. For that much longer
// the session may be waiting for its client before others end it.
func Number(id int32, trip time.Duration) int32 {
	return (id%(1<<(31-tripBits)-1)+1)<<tripBits | int32(min(trip.Milliseconds(), 1<<tripBits-1))
}
