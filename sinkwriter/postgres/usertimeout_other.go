//go:build !linux

package postgres

import (
	"syscall"
	"time"
)

// userTimeout sets nothing: only Linux has TCP_USER_TIMEOUT. Keepalives end idle connections.
func userTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
