package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// spin is run without sleeping. A generator that sleeps has to be woken, and the server
// pays for that when it writes: on a virtual machine as much as for all its other work,
// and more the slower the machine is.
func (l *load) spin(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := min(runtime.GOMAXPROCS(0), l.connections)
	seen := make([]latencies, workers)
	var next atomic.Int64
	var all sync.WaitGroup
	begin := l.now()
	for w := range workers {
		all.Go(func() {
			s := &spinner{load: l, next: &next, seen: &seen[w]}
			defer s.close()
			for c := w; c < l.connections; c += workers {
				if err := s.connect(c); err != nil {
					cancel(err)
					return
				}
			}
			if err := s.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	o := outcome{elapsed: l.now().Sub(begin)}
	for i := range seen {
		o.latencies.add(&seen[i])
	}
	return o, context.Cause(ctx)
}

// spinner serves some of the connections, on a core of its own.
type spinner struct {
	*load
	next  *atomic.Int64
	seen  *latencies
	epoll int
	conns map[int32]*spun // by file descriptor
	under int             // number of requests under way
}

// spun is a connection.
type spun struct {
	fd      int
	c, n    int // its number, and its request's
	begin   time.Time
	answer  [4096]byte
	got     int
	waiting bool // for an answer
}

func (s *spinner) connect(c int) error {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: number}
	copy(to.Addr[:], net.ParseIP(host).To4())
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	if s.conns == nil {
		if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return fmt.Errorf("create an epoll: %w", err)
		}
		s.conns = map[int32]*spun{}
	}
	s.conns[int32(fd)] = &spun{fd: fd, c: c}
	if err := unix.Connect(fd, to); err != nil {
		return fmt.Errorf("connect to %s: %w", s.address, err)
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
		unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}),
	)
}

func (s *spinner) close() {
	for _, c := range s.conns {
		_ = unix.Close(c.fd) // there is nothing to save
	}
	if s.conns != nil {
		_ = unix.Close(s.epoll)
	}
}

func (s *spinner) run(ctx context.Context) error {
	for _, c := range s.conns {
		if err := s.send(c); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, 64)
	for turn := 0; s.under > 0; turn++ {
		n, err := unix.EpollWait(s.epoll, events, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for answers: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if err := s.receive(s.conns[e.Fd]); err != nil {
				return err
			}
		}
		if turn%(1<<16) == 0 {
			if err := s.look(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// look checks for hanging requests.
func (s *spinner) look(ctx context.Context) error {
	now := s.now()
	for _, c := range s.conns {
		if c.waiting && now.Sub(c.begin) > s.patience {
			return fmt.Errorf("request %d: no answer for %s", c.n, s.patience)
		}
	}
	return context.Cause(ctx)
}

// send sends a connection's next request, if there is one.
func (s *spinner) send(c *spun) error {
	c.n, c.got, c.waiting = int(s.next.Add(1)-1), 0, false
	if c.n >= s.requests {
		return nil
	}
	c.begin, c.waiting = s.now(), true
	s.under++
	for rest := s.request(c.c, c.n); len(rest) > 0; {
		n, err := unix.Write(c.fd, rest)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("request %d: %w", c.n, err)
		}
		rest = rest[max(n, 0):]
	}
	return nil
}

// receive reads the available part of an answer, and continues with the next
// request.
func (s *spinner) receive(c *spun) error {
	n, err := unix.Read(c.fd, c.answer[c.got:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("request %d: %w", c.n, err)
	case n == 0:
		return fmt.Errorf("request %d: the connection was closed", c.n)
	}
	c.got += n
	switch answer := c.answer[:c.got]; {
	case c.got >= len(noContent) && !bytes.HasPrefix(answer, []byte(noContent)), c.got == len(c.answer):
		return fmt.Errorf("request %d: the answer is %q, want 204", c.n, bytes.TrimSpace(answer))
	case !bytes.HasSuffix(answer, []byte("\r\n\r\n")):
		return nil
	}
	s.seen.count(s.now().Sub(c.begin))
	s.under--
	return s.send(c)
}
