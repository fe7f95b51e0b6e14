package local

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
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

// FreePort finds a port on 127.0.0.1 that nobody listens on at this moment. It is
// picked at random, so that two who look at the same time rarely pick the same.
func FreePort() (int, error) {
	var last error
	for range portTries {
		port := firstFreePort + rand.IntN(endFreePort-firstFreePort)
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
