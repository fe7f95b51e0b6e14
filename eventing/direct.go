package eventing

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// directBytes is the largest body that is sent directly. It fits into what the
	// system buffers, so that sending it waits for nobody who may want to answer
	// first.
	directBytes = 32 << 10

	// answerBytes is the largest body of an answer that is read before it is given, so
	// that the connection can be used again.
	answerBytes = 16 << 10
)

// direct is an http.RoundTripper that sends a small request over plain HTTP/1.1 from the
// goroutine that asks for it, and reads the answer there. net/http's has two goroutines
// for each connection and wakes one after the other for each request, which for a
// request that takes microseconds is half of its costs. Everything else it leaves to
// that one: other schemes, proxies, large bodies.
//
// # Design
//
// What a connection's end means is as in net/http: a request that went out on a
// connection that had been idle, and got not one byte as its answer, is sent again on
// another, since whoever was there has closed it meanwhile. All that is sent here may
// be sent twice.
type direct struct {
	next  http.RoundTripper
	proxy func(*http.Request) (*url.URL, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)

	idle     int           // connections to a host that are kept
	idleTime time.Duration // for how long

	mu      sync.Mutex
	hosts   map[string]*directHost
	closing bool // somebody comes to close what has been idle for long
}

// directHost is what is known of a host.
type directHost struct {
	proxied bool
	idle    []*directConn // the last one used is the last
}

type directConn struct {
	net.Conn
	r *bufio.Reader
	w *bufio.Writer

	used  time.Time // when it became idle
	again bool      // it has had an answer before
}

// RoundTrip implements http.RoundTripper.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "http" || req.ContentLength < 0 || req.ContentLength > directBytes ||
		req.ContentLength > 0 && req.GetBody == nil || d.host(req).proxied {
		return d.next.RoundTrip(req)
	}
	for {
		conn, err := d.take(req)
		if err != nil {
			return nil, err
		}
		res, open, err := conn.exchange(req)
		if err == nil {
			if open {
				d.give(req.URL.Host, conn)
			}
			return res, nil
		}
		_ = conn.Close() // it is of no use any more
		if ended := req.Context().Err(); ended != nil {
			return nil, ended
		}
		if !conn.again || !errors.Is(err, errNoAnswer) {
			return nil, err
		}
		if req, err = renewed(req); err != nil {
			return nil, err
		}
	}
}

// renewed gives a request with its body from the beginning.
func renewed(req *http.Request) (*http.Request, error) {
	if req.ContentLength == 0 {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Body = body
	return req, nil
}

func (d *direct) host(req *http.Request) *directHost {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[req.URL.Host]
	if h == nil {
		proxy, err := d.proxy(req)
		h = &directHost{proxied: proxy != nil || err != nil}
		d.hosts[req.URL.Host] = h
	}
	return h
}

// take gives a connection, an idle one if there is one.
func (d *direct) take(req *http.Request) (*directConn, error) {
	d.mu.Lock()
	h := d.hosts[req.URL.Host]
	if n := len(h.idle); n > 0 {
		conn := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		d.mu.Unlock()
		return conn, nil
	}
	d.mu.Unlock()

	address := req.URL.Host
	if req.URL.Port() == "" {
		address = net.JoinHostPort(req.URL.Hostname(), "80")
	}
	conn, err := d.dial(req.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return &directConn{Conn: conn, r: bufio.NewReaderSize(conn, 1<<10), w: bufio.NewWriterSize(conn, 2<<10)}, nil
}

// give keeps a connection for another request.
func (d *direct) give(host string, conn *directConn) {
	conn.again = true
	conn.used = time.Now() //nolint:forbidigo // how old a connection is decides about nothing but it
	d.mu.Lock()
	h := d.hosts[host]
	keep := len(h.idle) < d.idle
	if keep {
		h.idle = append(h.idle, conn)
		d.closeLater()
	}
	d.mu.Unlock()
	if !keep {
		_ = conn.Close() // there are enough
	}
}

// closeLater sees to it that connections do not stay idle for too long. The caller holds
// mu.
func (d *direct) closeLater() {
	if !d.closing {
		d.closing = true
		time.AfterFunc(d.idleTime, d.closeIdle)
	}
}

func (d *direct) closeIdle() {
	now := time.Now() //nolint:forbidigo // as in give
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closing = false
	for _, h := range d.hosts {
		old := 0
		for old < len(h.idle) && now.Sub(h.idle[old].used) >= d.idleTime {
			_ = h.idle[old].Close() // nobody uses it
			old++
		}
		h.idle = slices.Delete(h.idle, 0, old)
		if len(h.idle) > 0 {
			d.closeLater()
		}
	}
}

// errNoAnswer says that a connection ended before the first byte of an answer.
var errNoAnswer = errors.New("connection closed without an answer")

// exchange sends a request and reads the answer. Open is true if the connection may be
// used for another one; else it is closed with the answer's body.
func (c *directConn) exchange(req *http.Request) (res *http.Response, open bool, err error) {
	unhook := context.AfterFunc(req.Context(), func() { _ = c.Close() }) // ends what is waiting
	c.w.Reset(c.Conn)
	err = req.Write(c.w)
	if err == nil {
		err = c.w.Flush()
	}
	// An answer may be there even though not all could be sent.
	if _, none := c.r.Peek(1); none != nil {
		unhook()
		return nil, false, errors.Join(errNoAnswer, err, none)
	}
	for res == nil || res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
		if res, err = http.ReadResponse(c.r, req); err != nil {
			unhook()
			return nil, false, err
		}
	}
	if res.ContentLength < 0 || res.ContentLength > answerBytes || res.Close {
		res.Body = &rest{ReadCloser: res.Body, conn: c, unhook: unhook}
		return res, false, nil
	}
	body := make([]byte, res.ContentLength)
	if _, err = io.ReadFull(res.Body, body); err != nil {
		unhook()
		return nil, false, err
	}
	res.Body = http.NoBody
	if len(body) > 0 {
		res.Body = io.NopCloser(bytes.NewReader(body))
	}
	if !unhook() || c.r.Buffered() > 0 {
		_ = c.Close() // all of the answer is there
		return res, false, nil
	}
	return res, true, nil
}

// rest is the body of an answer that is still on its way.
type rest struct {
	io.ReadCloser

	conn   *directConn
	unhook func() bool
}

// Close ends the connection too.
func (r *rest) Close() error {
	r.unhook()
	return errors.Join(r.ReadCloser.Close(), r.conn.Close())
}
