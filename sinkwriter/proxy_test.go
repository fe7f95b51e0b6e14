package sinkwriter_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
)

// message is a message of the PostgreSQL protocol that passes through a proxy.
type message struct {
	fromServer bool
	kind       byte // zero: the start-up message, which has none
	text       []byte

	// The state of the connection: the statement of a Bind, and the requests of
	// the client since the server was last ready.
	sql     string
	pending []string
	synced  bool
}

// asked reports whether the client has sent a statement that contains part and
// ended its round trip, and the server has not completed its answer.
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

// pass is the decision about a message: how many of its bytes are forwarded before
// act is called. A nil act forwards all of it.
type pass struct {
	bytes int
	act   func(*link.Conn)
}

// proxy is a link to a database that inspects every message.
type proxy struct {
	url   string
	close func() // ends all connections

	mu   sync.Mutex
	look func(*message) pass // called by one goroutine at a time
}

// newProxy starts a proxy for the server of a database URL; its url leads
// through it.
func newProxy(t *testing.T, databaseURL string, look func(*message) pass) *proxy {
	t.Helper()
	p := &proxy{look: look}
	l := link.NewTapped(func() link.Tap { return &proxyTap{proxy: p, statements: map[string]string{}} })
	t.Cleanup(l.Close)
	p.close = l.Close
	var err error
	if p.url, err = l.URL(databaseURL); err != nil {
		t.Fatal(err)
	}
	return p
}

// proxyTap follows the protocol of one connection.
type proxyTap struct {
	proxy *proxy

	read bool // whether the first message of the client has been read

	// Under the mutex of the proxy.
	passed     bool              // whether the first message of the client has been passed on
	statements map[string]string // name to SQL
	pending    []string
	synced     bool
}

// Read reads a message; the first of a client has no kind.
func (c *proxyTap) Read(in *bufio.Reader, fromServer bool) ([]byte, error) {
	header := 5
	if !fromServer && !c.read {
		c.read = true
		header = 4
	}
	head, err := in.Peek(header)
	if err != nil {
		return nil, err
	}
	text := make([]byte, header-4+int(binary.BigEndian.Uint32(head[header-4:])))
	if _, err := io.ReadFull(in, text); err != nil {
		return nil, err
	}
	return text, nil
}

// Pass records a message and decides about it.
func (c *proxyTap) Pass(text []byte, fromServer bool) (int, func(*link.Conn)) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	m := &message{fromServer: fromServer, text: text}
	if fromServer || c.passed {
		m.kind = text[0]
	} else {
		c.passed = true
	}
	body := text[min(5, len(text)):]
	switch {
	case m.kind == 'P' && !fromServer:
		name, rest, _ := bytes.Cut(body, []byte{0})
		sql, _, _ := bytes.Cut(rest, []byte{0})
		c.statements[string(name)] = string(sql)
	case m.kind == 'B' && !fromServer:
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		m.sql = c.statements[string(name)]
		c.pending = append(c.pending, m.sql)
	case m.kind == 'S' && !fromServer:
		c.synced = true
	}
	m.pending, m.synced = c.pending, c.synced
	p := c.proxy.look(m)
	if m.kind == 'Z' && fromServer {
		c.pending, c.synced = nil, false
	}
	return p.bytes, p.act
}
