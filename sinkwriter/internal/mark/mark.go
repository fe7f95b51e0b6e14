// Package mark marks transactions as Tandem's own, for as long as they last: by an advisory
// lock that ends with the transaction, and that nobody waits for. It is in pg_locks, whatever
// pooler is in between. Only sessions with the mark are ended when they hold a lock that
// another one waits for, and do not continue.
package mark

// Class is the first key of the lock, also in SQL: in the settings of a writer's transactions,
// whose second key is a number by which the sessions that block them are found, and in function
// tandem.end_session.
const Class = 1_413_566_020

// SQL marks a transaction that does not look for the sessions that block it.
const SQL = `select pg_catalog.pg_try_advisory_xact_lock_shared(1413566020, 0)`
