package main

import (
	"os"
	"time"

	"github.com/tandem-fn/tandem/test/bench/harness"
)

// cpu returns the processor time that this process and all processes of the server
// have used. It returns false if the system does not count it, which is every system
// except Linux.
func (t *trial) cpu() (client, server time.Duration, known bool) {
	if client, known = harness.ProcessorTime(os.Getpid()); !known {
		return 0, 0, false
	}
	server, known = t.server.ProcessorTime()
	return client, server, known
}
