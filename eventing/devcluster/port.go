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

// Ports that FreePort picks from. Linux picks the ports of clients from 32768 on, macOS from
// 49152 on: a server there could lose its port to a connection between a crash and its
// restart.
const (
	firstFreePort = 10_000
	endFreePort   = 32_000
	portTries     = 100
)

// nextPort counts through the ports from a random one on, for the whole process, so that
// concurrent tests get different ones.
var nextPort = func() *atomic.Uint32 {
	var next atomic.Uint32
	next.Store(rand.Uint32N(endFreePort - firstFreePort))
	return &next
}()

// FreePort returns a port on 127.0.0.1 on which no process listens now.
func FreePort() (int, error) { return FreePorts(1) }

// FreePorts returns the first of n free ports on 127.0.0.1 in a row. It returns a port again
// only after all others. Where it begins is random, so that two processes rarely pick the
// same ports.
func FreePorts(n int) (first int, err error) {
	for range portTries {
		end := int(nextPort.Add(uint32(n)) % (endFreePort - firstFreePort))
		if end < n {
			continue // the row would wrap
		}
		first = firstFreePort + end - n
		err = nil
		for i := 0; i < n && err == nil; i++ {
			err = CheckPort(first + i)
		}
		if err == nil {
			return first, nil
		}
	}
	return 0, fmt.Errorf("find %d free ports: %w", n, err)
}

// CheckPort returns an error if a server cannot listen on a port of 127.0.0.1.
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
