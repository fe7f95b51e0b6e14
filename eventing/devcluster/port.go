package devcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

// Ports that FreePort picks from. Linux takes a client's port from 32768 on, macOS
// from 49152 on: a server there could lose its port to any connection between a
// crash and its restart.
const (
	firstFreePort = 10_000
	endFreePort   = 32_000
	portTries     = 100
)

// nextPort counts through the ports from a random place on, for the whole process:
// tests that look at the same time must not be given the same one.
var nextPort = func() *atomic.Uint32 {
	var next atomic.Uint32
	next.Store(rand.Uint32N(endFreePort - firstFreePort))
	return &next
}()

// FreePort finds a port on 127.0.0.1 that nobody listens on at this moment. A
// process is not given the same one twice until all were; which is the first is
// random, so that two processes rarely pick the same.
func FreePort() (int, error) {
	var last error
	for range portTries {
		port := firstFreePort + int(nextPort.Add(1)%(endFreePort-firstFreePort))
		if last = CheckPort(port); last == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

// CheckPort says whether a server could listen on a port of 127.0.0.1; the error
// says why not.
func CheckPort(port int) error {
	if port < 1 || port > 65_535 {
		return errors.New("want a port from 1 to 65535, got " + strconv.Itoa(port))
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d on 127.0.0.1 is taken: stop what listens there, or choose another port", port)
	}
	if err != nil {
		return err
	}
	return l.Close()
}
