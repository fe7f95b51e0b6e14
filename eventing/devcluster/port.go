package devcluster

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// The ports from which FreePort picks. Linux picks the ports of clients from 32768 on, macOS
// from 49152 on: a server there could lose its port to a connection between a crash and its
// restart.
const (
	firstFreePort = 10_000
	endFreePort   = 32_000
	freePorts     = endFreePort - firstFreePort
)

// nextPort counts through the ports, starting at a random one, for the whole process, so
// that concurrent tests receive different ones.
var nextPort = func() *atomic.Uint32 {
	var next atomic.Uint32
	next.Store(rand.Uint32N(freePorts))
	return &next
}()

// claims is a file in which a process locks, until it ends, the byte of each port that it was
// assigned: between the choice of a port and the server's start there may be half a minute,
// in which another process would find the port free.
var claims = sync.OnceValues(func() (*os.File, error) {
	name := filepath.Join(os.TempDir(), "tandem-ports-"+strconv.Itoa(os.Getuid()))
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
})

// claim returns an error if another process of this user has claimed the port.
func claim(port int) error {
	file, err := claims()
	if err != nil {
		return fmt.Errorf("claim a port: %w", err)
	}
	err = syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart, Start: int64(port), Len: 1})
	if err != nil {
		return fmt.Errorf("claim port %d: %w", port, err)
	}
	return nil
}

// FreePort returns a port on 127.0.0.1 on which no process currently listens.
func FreePort() (int, error) { return FreePorts(1) }

// FreePorts returns the first of n consecutive free ports on 127.0.0.1. It returns a port
// again only after all others, and to only one process of a user at a time.
func FreePorts(n int) (first int, err error) {
	for range freePorts { // another process may have claimed hundreds in a row
		end := int(nextPort.Add(uint32(n)) % freePorts)
		if end < n {
			continue // the row would wrap around
		}
		first = firstFreePort + end - n
		err = nil
		for i := 0; i < n && err == nil; i++ {
			if err = claim(first + i); err == nil {
				err = CheckPort(first + i)
			}
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
	err := listen(port)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d on 127.0.0.1 is in use: stop the process that listens on it, or choose another port", port)
	}
	if err != nil {
		return fmt.Errorf("listen on port %d of 127.0.0.1: %w", port, err)
	}
	return nil
}

// tryFork makes package os find out whether it can start processes with a descriptor. Package
// os starts one without the lock to find out, before the first process that it is asked for.
var tryFork = sync.OnceFunc(func() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Release()
	}
})

// listen listens on a port for a moment, during which no process is started: a child has
// the sockets of its parent until it executes its program, and would keep the port in use
// after listen has returned.
func listen(port int) error {
	tryFork()
	syscall.ForkLock.RLock() // not package net, which locks it too on some systems
	defer syscall.ForkLock.RUnlock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	err = syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) // like package net
	if err == nil {
		err = syscall.Bind(socket, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = syscall.Listen(socket, 1)
	}
	return errors.Join(err, syscall.Close(socket))
}
