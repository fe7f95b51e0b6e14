// Package natstest is test/natstest under its former name.
package natstest

import (
	"testing"

	"github.com/tandem-fn/tandem/test/natstest"
)

// Server is [natstest.Server].
type Server = natstest.Server

// Start is [natstest.Start].
func Start(tb testing.TB) *Server {
	tb.Helper()
	return natstest.Start(tb)
}
