package natstest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Losing is an address of a server that loses one request, like a change of leader: the
// request is never answered, not even with an error.
type Losing struct {
	target, subject string
	listener        net.Listener
	seen            atomic.Int64
}

// LoseOne returns an address of the server at which the first message whose subject
// begins with subject is lost.
func (s *Server) LoseOne(tb testing.TB, subject string) *Losing {
	tb.Helper()

	listener, err := net.Listen("tcp", loopback(0)) //nolint:noctx // takes no time
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	l := &Losing{target: loopback(s.port), subject: subject, listener: listener}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go l.carry(client)
		}
	}()
	return l
}

// URL returns the address for clients.
func (l *Losing) URL() string { return "nats://" + l.listener.Addr().String() }

// Seen returns how many messages with the subject were sent, including the lost one.
func (l *Losing) Seen() int { return int(l.seen.Load()) }

func (l *Losing) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", l.target) //nolint:noctx // on this machine
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	commands := bufio.NewReader(client)
	for {
		subject, command, err := readCommand(commands)
		if err != nil {
			return
		}
		if subject != "" && strings.HasPrefix(subject, l.subject) && l.seen.Add(1) == 1 {
			continue
		}
		if _, err := server.Write(command); err != nil {
			return
		}
	}
}

// readCommand reads one command of a client. If it publishes, it is read with the
// payload and the subject.
func readCommand(r *bufio.Reader) (subject string, command []byte, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return "", nil, err
	}
	fields := bytes.Fields(line)
	if len(fields) < 3 || !bytes.EqualFold(fields[0], []byte("PUB")) && !bytes.EqualFold(fields[0], []byte("HPUB")) {
		return "", line, nil
	}
	size, err := strconv.Atoi(string(fields[len(fields)-1])) // HPUB has the sizes of headers and data
	if err != nil {
		return "", nil, err
	}
	command = append(line, make([]byte, size+2)...)
	_, err = io.ReadFull(r, command[len(line):])
	return string(fields[1]), command, err
}
