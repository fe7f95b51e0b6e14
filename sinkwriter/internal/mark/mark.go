// Package mark marks transactions as Tandem's own with an advisory lock that ends with the
// transaction and that no session waits for. The lock is visible in pg_locks behind any
// pooler. Only sessions with the mark are ended when they hold a lock that another session
// waits for, and do not continue.
package mark

import "time"

// Class is the first key of the lock. The SQL contains it, too: in the settings of a writer's
// transactions, whose second key is a number that identifies the waiting session, and in
// function tandem.end_session.
const Class = 1_413_566_020

// SQL marks a transaction that does not look for the sessions that block it.
const SQL = `select pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, 0)`

// tripBits is the number of bits for the round trip in milliseconds, at most 4 s.
const tripBits = 12

// Number returns the second key of a mark: a positive number that contains id and the round
// trip between the session and its client. Other sessions look up their blockers by it, and let
// the session wait that much longer for its client before they end it.
func Number(id int32, trip time.Duration) int32 {
	return (id%(1<<(31-tripBits)-1)+1)<<tripBits | int32(min(trip.Milliseconds(), 1<<tripBits-1))
}
