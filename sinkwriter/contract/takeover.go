// Package contract declares once what sinkwriter shares with others: with SQL, which a test
// of sinkwriter compares, and with publishers of outputs. It imports no database, so that
// programs without one can use it.
package contract

import "time"

// RelayTakeover is how long committed outputs are left to their winner until a relay
// publishes them, maybe again. The default of tandem.outbox.due and the relay's statement
// agree with it. A stream of outputs must recognise repeated events for at least as long.
const RelayTakeover = 30 * time.Second
