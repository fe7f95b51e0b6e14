package natstest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is what is between two clusters. It can be cut.
type Link struct {
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newLink(tb testing.TB) *Link {
	tb.Helper()

	l := &Link{conns: map[net.Conn]bool{}}
	tb.Cleanup(l.Cut) // or what still goes through it would go on
	return l
}

// Cut ends all connections that go through the link, and lets no new ones through.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.conns {
		_ = conn.Close()
	}
	clear(l.conns)
}

// Heal lets connections through again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// to gives an address from which connections go to target, through the link.
func (l *Link) to(tb testing.TB, target string) string {
	tb.Helper()

	listener, err := net.Listen("tcp", loopback(0)) //nolint:noctx // takes no time
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(near, target)
		}
	}()
	return listener.Addr().String()
}

func (l *Link) carry(near net.Conn, target string) {
	far, err := net.DialTimeout("tcp", target, time.Second) //nolint:noctx // bounded
	if err != nil {
		_ = near.Close()
		return
	}
	if !l.add(near, far) {
		return
	}
	copied := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			copied <- struct{}{}
		}()
	}
	<-copied
	_, _ = near.Close(), far.Close()
	<-copied
	l.remove(near, far)
}

func (l *Link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		if l.cut {
			_ = conn.Close()
			continue
		}
		l.conns[conn] = true
	}
	return !l.cut
}

func (l *Link) remove(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range conns {
		delete(l.conns, conn)
	}
}
