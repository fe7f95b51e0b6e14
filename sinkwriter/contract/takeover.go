// Package contract declares constants and types that sinkwriter shares with SQL and with
// publishers of outputs. A test of sinkwriter compares them with the SQL. The package
// imports no database, so that programs without one can use it.
package contract

import "time"

// RelayTakeover is the age at which a relay publishes committed outputs that their winner
// has not published, possibly a second time. The default of tandem.outbox.due and the
// relay's statement use the same value. A stream of outputs must deduplicate events for
// at least as long.
const RelayTakeover = 30 * time.Second
