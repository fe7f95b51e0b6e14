package link_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
)

const (
	patience = time.Minute

	// silence is how long nothing must arrive.
	silence = 100 * time.Millisecond
)

// echo starts a server that returns each line that it receives.
func echo(t *testing.T) (address string) {
	t.Helper()

	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

func newLink(t *testing.T) (*link.Link, string) {
	t.Helper()

	l := link.New()
	t.Cleanup(l.Close)
	return l, listen(t, l, echo(t))
}

func listen(t *testing.T, l *link.Link, target string) (address string) {
	t.Helper()

	address, err := l.Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// client sends and receives lines.
type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, address string) client {
	t.Helper()

	conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{Conn: conn, lines: bufio.NewReader(conn)}
}

func (c client) send(t *testing.T, line string) {
	t.Helper()

	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c client) receive(within time.Duration) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}

func (c client) wants(t *testing.T, line string) {
	t.Helper()

	if got, err := c.receive(patience); err != nil || got != line+"\n" {
		t.Fatalf("received %q, %v, want %q", got, err, line)
	}
}

func (c client) wantsNothing(t *testing.T) {
	t.Helper()

	var timeout net.Error
	if got, err := c.receive(silence); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("received %q, %v, want nothing", got, err)
	}
}

func (c client) wantsTheEnd(t *testing.T) {
	t.Helper()

	var timeout net.Error
	got, err := c.receive(patience)
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("received %q, %v, want the end of the connection", got, err)
	}
}

func TestCutLinkEndsConnectionsAndAcceptsNone(t *testing.T) {
	t.Parallel()

	l, address := newLink(t)
	c := dial(t, address)
	c.send(t, "one")
	c.wants(t, "one")
	l.Cut()
	c.wantsTheEnd(t)
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address); err == nil { // the proxy itself accepts
		client{Conn: c, lines: bufio.NewReader(c)}.wantsTheEnd(t)
	}
	l.Heal()
	c = dial(t, address)
	c.send(t, "two")
	c.wants(t, "two")
}

func TestSilentLinkHidesEvenTheEndOfAConnection(t *testing.T) {
	t.Parallel()

	l, address := newLink(t)
	c, ended := dial(t, address), dial(t, address)
	for _, c := range []client{c, ended} {
		c.send(t, "one")
		c.wants(t, "one")
	}
	l.Set(link.Condition{Silent: true})
	c.send(t, "two")
	if tcp, ok := ended.Conn.(*net.TCPConn); !ok || tcp.CloseWrite() != nil {
		t.Fatal("the writing end is still open")
	}
	late := dial(t, address)
	late.send(t, "three")
	for _, c := range []client{c, ended, late} {
		c.wantsNothing(t)
	}
	l.Heal()
	c.wants(t, "two")
	late.wants(t, "three")
	ended.wantsTheEnd(t)
}

func TestLinkThatIsSilentBackDeliversThere(t *testing.T) {
	t.Parallel()

	l, address := newLink(t)
	c := dial(t, address)
	c.send(t, "one")
	c.wants(t, "one")
	l.Set(link.Condition{SilentBack: true})
	c.send(t, "two")
	eventtest.Eventually(t, "the line has arrived", func() bool { there, _ := l.Bytes(); return there == 8 })
	c.wantsNothing(t)
	if there, back := l.Bytes(); there != 8 || back != 4 {
		t.Errorf("%d bytes there and %d back, want 8 and 4", there, back)
	}
	l.Heal()
	c.wants(t, "two")
}

func TestDelayAndLossTakeTheirTime(t *testing.T) {
	t.Parallel()

	for name, tt := range map[string]struct {
		condition link.Condition
		least     time.Duration
	}{
		"delay": {link.Condition{Delay: 50 * time.Millisecond}, 100 * time.Millisecond},
		"loss":  {link.Condition{Loss: 1}, 400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			l, address := newLink(t)
			l.Set(tt.condition)
			c := dial(t, address)
			begun := time.Now()
			c.send(t, "one")
			c.wants(t, "one")
			if took := time.Since(begun); took < tt.least {
				t.Errorf("there and back took %s, want at least %s", took, tt.least)
			}
		})
	}
}

func TestARateIsSharedByTheConnections(t *testing.T) {
	t.Parallel()

	l, address := newLink(t)
	const size, rate = 64 << 10, 1 << 20
	l.Set(link.Condition{Rate: rate})
	line := strings.Repeat("x", size)
	clients := []client{dial(t, address), dial(t, address)}
	begun := time.Now()
	for _, c := range clients {
		go func() { _, _ = io.WriteString(c, line+"\n") }()
	}
	for _, c := range clients {
		c.wants(t, line)
	}
	// Both lines have crossed, one after the other, and the second one back.
	if took, least := time.Since(begun), 2*time.Second*size/rate; took < least {
		t.Errorf("that took %s, want at least %s", took, least)
	}
}

func TestResetLeavesHalfOfAPiece(t *testing.T) {
	t.Parallel()

	l, address := newLink(t)
	c := dial(t, address)
	c.send(t, "one")
	c.wants(t, "one")
	l.Set(link.Condition{Resets: 1})
	c.send(t, "twelve is long")
	c.wantsTheEnd(t)
	if there, _ := l.Bytes(); there != 4+7 {
		t.Errorf("%d bytes there, want 11", there)
	}
}

// lineTap acts on lines.
type lineTap struct {
	act map[string]func(*link.Conn)
}

func (lineTap) Read(in *bufio.Reader, _ bool) ([]byte, error) { return in.ReadBytes('\n') }

func (t lineTap) Pass(piece []byte, back bool) (int, func(*link.Conn)) {
	if back {
		return 0, nil
	}
	return 1, t.act[strings.TrimSpace(string(piece))]
}

func TestTapActsAtAByteOfAMessage(t *testing.T) {
	t.Parallel()

	frozen := make(chan *link.Conn, 1)
	l := link.NewTapped(func() link.Tap {
		return lineTap{act: map[string]func(*link.Conn){
			"freeze": func(c *link.Conn) { c.Freeze(); frozen <- c },
			"cut":    (*link.Conn).Cut,
		}}
	})
	t.Cleanup(l.Close)
	address := listen(t, l, echo(t))

	c, other := dial(t, address), dial(t, address)
	c.send(t, "freeze")
	held := <-frozen
	c.wantsNothing(t)
	other.send(t, "free")
	other.wants(t, "free")
	if there, _ := l.Bytes(); there != 1+5 {
		t.Errorf("%d bytes there, want the first one of the frozen line and all 5 of the other", there)
	}
	held.Thaw()
	c.wants(t, "freeze")
	c.send(t, "cut")
	c.wantsTheEnd(t)
	other.send(t, "free")
	other.wants(t, "free")
}

func TestASenderBlocksBehindAFrozenMessage(t *testing.T) {
	t.Parallel()

	frozen := make(chan struct{})
	l := link.NewTapped(func() link.Tap {
		return lineTap{act: map[string]func(*link.Conn){"freeze": func(c *link.Conn) { c.Freeze(); close(frozen) }}}
	})
	t.Cleanup(l.Close)
	c := dial(t, listen(t, l, echo(t)))
	c.send(t, "freeze")
	<-frozen
	// More than the buffers of the system hold.
	line := []byte(strings.Repeat("x", 1<<20) + "\n")
	if err := c.SetWriteDeadline(time.Now().Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := c.Write(line); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("64 MiB were read from the sender of a frozen message")
}

func TestURLLeadsOverTheLinkAtOneAddress(t *testing.T) {
	t.Parallel()

	l := link.New()
	t.Cleanup(l.Close)
	one, two := listen(t, l, "127.0.0.1:1"), listen(t, l, "127.0.0.1:2")
	for target, want := range map[string]string{
		"nats://127.0.0.1:1":                            "nats://" + one,
		"http://127.0.0.1:1/a/b?c=d@e":                  "http://" + one + "/a/b?c=d@e",
		"postgres://u:p@127.0.0.1:1,127.0.0.1:2/x?y=/z": "postgres://u:p@" + one + "," + two + "/x?y=/z",
	} {
		if got, err := l.URL(target); err != nil || got != want {
			t.Errorf("URL(%q) is %q, %v, want %q", target, got, err, want)
		}
	}
	if _, err := l.URL("127.0.0.1:1"); err == nil {
		t.Error("an address without a scheme is not a URL")
	}
	l.Close()
	if _, err := l.Listen("127.0.0.1:3"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen after Close: %v, want net.ErrClosed", err)
	}
}

func TestConnectionsGoToTheNextTargetThatAcceptsThem(t *testing.T) {
	t.Parallel()

	named := func(name string) net.Listener {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, name)
				_ = conn.Close()
			}
		}()
		return listener
	}
	a, b, c := named("a"), named("b"), named("c")
	l := link.New()
	t.Cleanup(l.Close)
	address, err := l.ListenAny(a.Addr().String(), b.Addr().String(), c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	reached := func(n int) (names string) {
		for range n {
			conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			name, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			names += string(name)
			_ = conn.Close()
		}
		return names
	}
	if got := reached(6); got != "abcabc" {
		t.Errorf("connections reached %q", got)
	}
	_ = b.Close()
	if got := reached(3); got != "acc" {
		t.Errorf("without b, connections reached %q", got)
	}
}
