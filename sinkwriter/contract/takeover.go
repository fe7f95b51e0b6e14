// Package contract declares what Go and SQL share, once: a test of sinkwriter compares
// it with the migrated schema. It imports nothing, so that programs without a database
// can use it.
package contract

import "time"

// RelayTakeover is how long committed outputs are left to their winner until a relay
// publishes them, maybe again. The default of tandem.outbox.due and the relay's statement
// agree with it. A stream of outputs must recognise repeated events for at least as long.
const RelayTakeover = 30 * time.Second
