package link

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// bufferSize is the size of a piece without a tap, and ahead the number of pieces that
// may be in flight in one direction. With a tap none are: bytes sent after a frozen
// piece must stay with their sender, so that a server blocks while it writes.
const (
	bufferSize = 16 << 10
	ahead      = 256
)

// Tap observes one connection. Its methods are called by one goroutine for each
// direction; those of both directions run concurrently.
type Tap interface {
	// Read reads the next piece that an end has sent: the far end if back is true.
	Read(in *bufio.Reader, back bool) (piece []byte, err error)

	// Pass is called immediately before a piece is delivered. If act is not nil, the
	// first n bytes are delivered, act is called, and then the rest is delivered,
	// unless act has frozen or cut the connection.
	Pass(piece []byte, back bool) (n int, act func(*Conn))
}

// Conn is a connection that crosses a link. It is safe for concurrent use.
type Conn struct {
	link *Link
	tap  Tap // nil without a tap
	near net.Conn

	// Guarded by the mutex of the link.
	far         net.Conn // nil until it is connected
	frozen, cut bool
}

// Freeze stops both directions.
func (c *Conn) Freeze() { c.set(func() { c.frozen = true }) }

// Thaw undoes [Conn.Freeze].
func (c *Conn) Thaw() { c.set(func() { c.frozen = false }) }

// Cut ends the connection on both sides.
func (c *Conn) Cut() {
	c.set(func() {
		c.cut = true
		_ = c.near.Close()
		if c.far != nil {
			_ = c.far.Close()
		}
	})
}

func (c *Conn) set(change func()) {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	change()
	c.link.notify()
}

// reset ends the connection with RST on both sides. The caller holds the mutex of
// the link.
func (c *Conn) reset() {
	c.cut = true
	reset(c.near)
	if c.far != nil {
		reset(c.far)
	}
}

// join sets the far end, and reports whether the connection has not been cut.
func (c *Conn) join(far net.Conn) bool {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.cut {
		reset(far)
		return false
	}
	c.far = far
	return true
}

// wait waits until one direction flows. It returns the condition of the link, and false
// if the connection is cut.
func (c *Conn) wait(back bool) (Condition, bool) {
	for {
		c.link.mu.Lock()
		now, changed, frozen, cut := c.link.now, c.link.changed, c.frozen, c.cut
		c.link.mu.Unlock()
		switch {
		case cut:
			return now, false
		case frozen, now.Silent, now.SilentBack && back:
			<-changed
		default:
			return now, true
		}
	}
}

// piece is a number of bytes in flight.
type piece struct {
	data []byte
	due  time.Time
}

// pump copies from from to to, until one of them ends.
func (c *Conn) pump(to, from net.Conn, back bool) {
	pieces := make(chan piece, ahead)
	if c.tap != nil {
		pieces = make(chan piece)
	}
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		for p := range pieces {
			if !c.deliver(to, p, back) {
				c.Cut()
				for range pieces { // until the reader has noticed
				}
			}
		}
	}()
	in := bufio.NewReaderSize(from, bufferSize)
	for {
		data, err := c.read(in, back)
		if len(data) > 0 {
			pieces <- piece{data: data, due: c.due(len(data), back)}
		}
		if err == nil {
			continue
		}
		close(pieces)
		<-delivered
		if _, flows := c.wait(back); !flows {
			return
		}
		if tcp, ok := to.(*net.TCPConn); ok && errors.Is(err, io.EOF) {
			_ = tcp.CloseWrite()
		} else {
			_ = to.Close()
		}
		return
	}
}

func (c *Conn) read(in *bufio.Reader, back bool) ([]byte, error) {
	if c.tap != nil {
		return c.tap.Read(in, back)
	}
	if _, err := in.Peek(1); err != nil {
		return nil, err
	}
	data := make([]byte, in.Buffered())
	_, err := io.ReadFull(in, data)
	return data, err
}

// due returns when a piece of size bytes that is read now arrives.
func (c *Conn) due(size int, back bool) time.Time {
	c.link.mu.Lock()
	now := c.link.now
	left := time.Now()
	if now.Rate > 0 {
		free := &c.link.free[0]
		if back {
			free = &c.link.free[1]
		}
		if free.After(left) {
			left = *free
		}
		left = left.Add(time.Duration(size) * time.Second / time.Duration(now.Rate))
		*free = left
	}
	c.link.mu.Unlock()
	due := left.Add(now.Delay)
	if now.Loss > 0 && rand.Float64() < now.Loss {
		due = due.Add(retransmission)
	}
	return due
}

// deliver delivers a piece, and reports whether the connection continues.
func (c *Conn) deliver(to net.Conn, p piece, back bool) bool {
	time.Sleep(time.Until(p.due))
	now, flows := c.wait(back)
	if !flows {
		return false
	}
	if now.Resets > 0 && rand.Float64() < now.Resets {
		_ = c.write(to, p.data[:len(p.data)/2], back)
		c.link.mu.Lock()
		c.reset()
		c.link.mu.Unlock()
		return false
	}
	if c.tap != nil {
		if n, act := c.tap.Pass(p.data, back); act != nil {
			if !c.write(to, p.data[:n], back) {
				return false
			}
			act(c)
			p.data = p.data[n:]
			if _, flows = c.wait(back); !flows {
				return false
			}
		}
	}
	return c.write(to, p.data, back)
}

// write counts the bytes before the other end can answer them.
func (c *Conn) write(to net.Conn, data []byte, back bool) bool {
	count := &c.link.there
	if back {
		count = &c.link.back
	}
	count.Add(int64(len(data)))
	n, err := to.Write(data)
	count.Add(int64(n - len(data)))
	return err == nil
}
