package link

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Condition is the state of a link. The zero Condition is a healthy network.
type Condition struct {
	// Cut resets the connections and accepts no others.
	Cut bool

	// Silent drops everything in both directions, including the end of a connection,
	// like a data centre that loses power. SilentBack drops everything that the far end
	// sends.
	Silent, SilentBack bool

	// Delay is the latency of each direction.
	Delay time.Duration

	// Rate is how many bytes a second each direction carries, of all connections together; 0
	// means no limit.
	Rate int

	// Loss is the share of pieces that arrive when TCP would have retransmitted them,
	// and Resets the share of pieces in the middle of which the connection is reset.
	// From 0 to 1.
	Loss, Resets float64
}

const (
	// retransmission is approximately how long TCP takes to detect a lost packet.
	retransmission = 200 * time.Millisecond

	dialTimeout = 2 * time.Second
)

// Link carries connections between processes. It is healthy at first. It is safe for
// concurrent use.
type Link struct {
	newTap func() Tap // nil without a tap

	there, back atomic.Int64

	mu        sync.Mutex
	now       Condition
	free      [2]time.Time  // when the bytes sent there and back have left, with a Rate
	changed   chan struct{} // closed whenever the link or one of its connections changes
	conns     map[*Conn]bool
	listeners map[string]net.Listener // by target, or several separated by commas
	closed    bool
}

// New returns a link without connections.
func New() *Link { return NewTapped(nil) }

// NewTapped returns a link that calls newTap for each connection.
func NewTapped(newTap func() Tap) *Link {
	return &Link{
		newTap: newTap, changed: make(chan struct{}),
		conns: map[*Conn]bool{}, listeners: map[string]net.Listener{},
	}
}

// Set changes the condition of the link.
func (l *Link) Set(c Condition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = c
	if c.Cut {
		for conn := range l.conns {
			conn.reset()
		}
	}
	l.notify()
}

// Cut resets all connections and accepts no others until [Link.Heal].
func (l *Link) Cut() { l.Set(Condition{Cut: true}) }

// Heal makes the link healthy.
func (l *Link) Heal() { l.Set(Condition{}) }

// notify wakes all goroutines that wait for a change. The caller holds mu.
func (l *Link) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Bytes returns how many bytes have crossed the link: those sent by the connecting
// ends, and those sent back.
func (l *Link) Bytes() (there, back int64) { return l.there.Load(), l.back.Load() }

// Listen returns an address on 127.0.0.1 from which connections cross the link to the
// target, another address. The address of a target does not change.
func (l *Link) Listen(target string) (address string, err error) { return l.ListenAny(target) }

// ListenAny is [Link.Listen] with several targets, like a Service of Kubernetes: each
// connection is made to the next target that accepts it, and stays there.
func (l *Link) ListenAny(targets ...string) (address string, err error) {
	name := strings.Join(targets, ",")
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", fmt.Errorf("listen for %s: %w", name, net.ErrClosed)
	}
	listener := l.listeners[name]
	if listener == nil {
		if listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return "", fmt.Errorf("listen for %s: %w", name, err)
		}
		l.listeners[name] = listener
		go l.accept(listener, targets)
	}
	return listener.Addr().String(), nil
}

// URL returns a URL that reaches the hosts of target, which may be several separated by
// commas, over the link.
func (l *Link) URL(target string) (string, error) { return MapHosts(target, l.Listen) }

// MapHosts returns a URL with other hosts. There may be several, separated by commas,
// as in PostgreSQL's URLs.
func MapHosts(target string, other func(host string) (string, error)) (string, error) {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok {
		return "", fmt.Errorf("%q is not a URL", target)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndex(rest[:end], "@") + 1
	hosts := strings.Split(rest[at:end], ",")
	for i, host := range hosts {
		var err error
		if hosts[i], err = other(host); err != nil {
			return "", err
		}
	}
	return scheme + "://" + rest[:at] + strings.Join(hosts, ",") + rest[end:], nil
}

// Close resets all connections and stops listening.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	listeners := l.listeners
	l.listeners = nil
	l.mu.Unlock()
	for _, listener := range listeners {
		_ = listener.Close()
	}
	l.Cut()
}

func (l *Link) accept(listener net.Listener, targets []string) {
	for turn := 0; ; turn++ {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		next := turn % len(targets)
		go l.carry(near, slices.Concat(targets[next:], targets[:next]))
	}
}

// dial connects to the first target that accepts.
func dial(targets []string) (conn net.Conn, err error) {
	for _, target := range targets {
		if conn, err = (&net.Dialer{Timeout: dialTimeout}).DialContext(context.Background(), "tcp", target); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// carry connects near with one of the targets until both directions have ended.
func (l *Link) carry(near net.Conn, targets []string) {
	c := &Conn{link: l, near: near}
	if !l.add(c) {
		return
	}
	defer l.remove(c)
	if _, ok := c.wait(false); !ok {
		return
	}
	far, err := dial(targets)
	if err != nil || !c.join(far) {
		reset(near)
		return
	}
	if l.newTap != nil {
		c.tap = l.newTap()
	}
	var directions sync.WaitGroup
	directions.Go(func() { c.pump(far, near, false) })
	directions.Go(func() { c.pump(near, far, true) })
	directions.Wait()
}

// add reports whether the link is up, and keeps the connection if it is.
func (l *Link) add(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now.Cut {
		reset(c.near)
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	for _, end := range []io.Closer{c.near, c.far} {
		if end != nil {
			_ = end.Close()
		}
	}
}

// reset closes a connection with RST.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
