package sinkwriter_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// message is one of the PostgreSQL protocol, on its way through a proxy.
type message struct {
	fromServer bool
	kind       byte // zero: the start-up message, which has none
	text       []byte

	// What is known of the connection: the statement that a Bind is for, and
	// what the client has asked for since the server was last ready.
	sql     string
	pending []string
	synced  bool
}

// asked reports whether the client has asked for a statement and ended its round
// trip, and has not had the server's last word on it.
func (m *message) asked(part string) bool {
	if !m.synced {
		return false
	}
	for _, sql := range m.pending {
		if strings.Contains(sql, part) {
			return true
		}
	}
	return false
}

// pass says what becomes of a message: how many of its bytes are passed on before
// the proxy acts, and what it does then. A nil act passes all of it on.
type pass struct {
	bytes int
	act   func(*proxyConn)
}

// proxy stands between a client and a server and looks at every message.
type proxy struct {
	url      string
	listener net.Listener
	server   string
	look     func(*message) pass // called by one goroutine at a time

	mu    sync.Mutex
	conns []*proxyConn
}

// newProxy starts a proxy for the server of a database URL; its url leads
// through it.
func newProxy(t *testing.T, databaseURL string, look func(*message) pass) *proxy {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: u.Host, look: look}
	u.Host = l.Addr().String()
	p.url = u.String()
	t.Cleanup(p.close)
	go p.accept()
	return p
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.cut()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server) //nolint:noctx // a test's proxy, closed with it
		if err != nil {
			_ = client.Close()
			continue
		}
		c := &proxyConn{proxy: p, client: client, server: server, statements: map[string]string{}}
		c.flows.L = &c.mu
		p.mu.Lock()
		p.conns = append(p.conns, c)
		p.mu.Unlock()
		go c.pump(client, server, false)
		go c.pump(server, client, true)
	}
}

// proxyConn is one connection through a proxy.
type proxyConn struct {
	proxy          *proxy
	client, server net.Conn

	mu     sync.Mutex
	flows  sync.Cond
	frozen bool

	statements map[string]string // name to SQL
	pending    []string
	synced     bool
}

// freeze stops both directions where they are.
func (c *proxyConn) freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
}

// thaw lets them go on.
func (c *proxyConn) thaw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = false
	c.flows.Broadcast()
}

// cut ends the connection on both sides.
func (c *proxyConn) cut() {
	_ = c.client.Close()
	_ = c.server.Close()
	c.thaw()
}

func (c *proxyConn) waitUntilFlowing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.frozen {
		c.flows.Wait()
	}
}

func (c *proxyConn) pump(from, to net.Conn, fromServer bool) {
	defer c.cut()
	in := bufio.NewReaderSize(from, 64<<10)
	started := fromServer
	for {
		m, err := readMessage(in, started)
		if err != nil {
			c.waitUntilFlowing() // what one side did is not seen by the other yet
			return
		}
		m.fromServer, started = fromServer, true
		c.waitUntilFlowing()
		p := c.see(m)
		if p.act == nil {
			p.bytes = len(m.text)
		}
		if _, err := to.Write(m.text[:p.bytes]); err != nil {
			return
		}
		if p.act != nil {
			p.act(c)
			c.waitUntilFlowing()
			if _, err := to.Write(m.text[p.bytes:]); err != nil {
				return
			}
		}
	}
}

// see keeps account of a message and asks what becomes of it.
func (c *proxyConn) see(m *message) pass {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	body := m.text[min(5, len(m.text)):]
	switch {
	case m.kind == 'P' && !m.fromServer:
		name, rest, _ := bytes.Cut(body, []byte{0})
		sql, _, _ := bytes.Cut(rest, []byte{0})
		c.statements[string(name)] = string(sql)
	case m.kind == 'B' && !m.fromServer:
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		m.sql = c.statements[string(name)]
		c.pending = append(c.pending, m.sql)
	case m.kind == 'S' && !m.fromServer:
		c.synced = true
	}
	m.pending, m.synced = c.pending, c.synced
	var p pass
	if c.proxy.look != nil {
		p = c.proxy.look(m)
	}
	if m.kind == 'Z' && m.fromServer {
		c.pending, c.synced = nil, false
	}
	return p
}

// readMessage reads a message; the first of a client has no kind.
func readMessage(in *bufio.Reader, started bool) (*message, error) {
	header := 5
	if !started {
		header = 4
	}
	head, err := in.Peek(header)
	if err != nil {
		return nil, err
	}
	m := &message{}
	if started {
		m.kind = head[0]
	}
	m.text = make([]byte, header-4+int(binary.BigEndian.Uint32(head[header-4:])))
	_, err = io.ReadFull(in, m.text)
	return m, err
}
