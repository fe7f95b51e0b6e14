package world

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Weather is what a link does to what goes through it. The zero Weather is none.
type Weather struct {
	// Cut ends connections, and lets none be made.
	Cut bool

	// Silent lets nothing through, neither what is said nor that an end is gone: as
	// when a data centre has lost its power. Deaf does so to what the far end says.
	Silent, Deaf bool

	// Delay is how long each way takes.
	Delay time.Duration

	// Loss is the share of pieces that come when they would be sent again, and
	// Resets of those in the middle of which the connection is reset; 0 to 1.
	Loss, Resets float64
}

// resend is about how long TCP takes to notice a lost packet.
const resend = 200 * time.Millisecond

// Link is what is between one part and others that it connects to. It may be shared.
type Link struct {
	name string

	mu      sync.Mutex
	now     Weather
	changed chan struct{} // closed with each change
	conns   map[net.Conn]bool
	closers []io.Closer
}

func newLink(name string) *Link {
	return &Link{name: name, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
}

// Set changes the weather.
func (l *Link) Set(w Weather) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = w
	close(l.changed)
	l.changed = make(chan struct{})
	if w.Cut {
		for c := range l.conns {
			reset(c)
		}
		clear(l.conns)
	}
}

func (l *Link) weather() (Weather, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now, l.changed
}

// to gives an address from which connections go to target through the link.
func (l *Link) to(ctx context.Context, target string) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	l.closers = append(l.closers, listener)
	l.mu.Unlock()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(near, target)
		}
	}()
	return listener.Addr().String(), nil
}

// close ends everything.
func (l *Link) close() {
	l.Set(Weather{Cut: true})
	for _, c := range l.closers {
		_ = c.Close()
	}
}

func (l *Link) carry(near net.Conn, target string) {
	l.hear()
	dialer := net.Dialer{Timeout: 2 * time.Second}
	far, err := dialer.DialContext(context.Background(), "tcp", target)
	if err != nil {
		reset(near)
		return
	}
	if !l.add(near, far) {
		return
	}
	var ways sync.WaitGroup
	ways.Go(func() { l.pump(far, near, false) })
	ways.Go(func() { l.pump(near, far, true) })
	ways.Wait()
	l.remove(near, far)
}

func (l *Link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if l.now.Cut {
			reset(c)
			continue
		}
		l.conns[c] = true
	}
	return !l.now.Cut
}

func (l *Link) remove(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.conns, c)
		_ = c.Close()
	}
}

// piece is something on its way.
type piece struct {
	data []byte
	due  time.Time
}

// pump carries what from says to to, until one of them ends.
func (l *Link) pump(to, from net.Conn, back bool) {
	pieces := make(chan piece, 256)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for p := range pieces {
			if !l.deliver(to, from, p, back) {
				_, _ = to.Close(), from.Close()
				for range pieces { // until the other side has noticed
				}
				return
			}
		}
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			w, _ := l.weather()
			due := time.Now().Add(w.Delay)
			if w.Loss > 0 && rand.Float64() < w.Loss {
				due = due.Add(resend)
			}
			pieces <- piece{data: append([]byte(nil), buf[:n]...), due: due}
		}
		if err != nil {
			close(pieces)
			<-gone
			l.hear()
			if c, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
				_ = c.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

// deliver hands over one piece, false if the connection is done for.
func (l *Link) deliver(to, from net.Conn, p piece, back bool) bool {
	if wait := time.Until(p.due); wait > 0 {
		time.Sleep(wait)
	}
	for {
		w, changed := l.weather()
		switch {
		case w.Cut:
			return false
		case w.Silent, w.Deaf && back:
			<-changed
			continue
		case w.Resets > 0 && rand.Float64() < w.Resets:
			_, _ = to.Write(p.data[:len(p.data)/2])
			reset(to)
			reset(from)
			return false
		}
		_, err := to.Write(p.data)
		return err == nil
	}
}

// hear waits until the link is not silent.
func (l *Link) hear() {
	for {
		w, changed := l.weather()
		if !w.Silent {
			return
		}
		<-changed
	}
}

// reset ends a connection without a goodbye.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
