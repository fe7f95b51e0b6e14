package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// patience bounds requests and starts.
const patience = 30 * time.Second

// load is a sequence of requests, as bytes, on each of several connections. It reads
// no more of an answer than necessary, so that it costs little.
type load struct {
	address     string
	connections int
	requests    int
	patience    time.Duration // how long an answer may take before the request counts as hanging
	now         func() time.Time

	// request returns a connection's next request, the nth of all. The result is
	// valid until the next call for the same connection.
	request func(connection, n int) []byte
}

// outcome is the result of a load.
type outcome struct {
	elapsed   time.Duration
	latencies latencies
}

// run sends all requests. The error is the first answer that is not 204, or the error
// of a connection.
func (l *load) run(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	latencies := make([]latencies, l.connections)
	begin := l.now()
	for c := range l.connections {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
		if err != nil {
			cancel(err)
			break
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		workers.Go(func() {
			defer stop()
			defer conn.Close() //nolint:errcheck // there is nothing to save
			if err := l.work(conn, c, &next, &latencies[c]); err != nil {
				cancel(err)
			}
		})
	}
	workers.Wait()
	o := outcome{elapsed: l.now().Sub(begin)}
	for i := range latencies {
		o.latencies.add(&latencies[i])
	}
	return o, context.Cause(ctx)
}

func (l *load) work(conn net.Conn, c int, next *atomic.Int64, seen *latencies) error {
	// A deadline for each request would affect the figures. It is set once in a while,
	// so a hanging request may be detected after twice its time.
	const often = 256
	renewed := l.now()
	answer := make([]byte, 4096)
	for done := 0; ; done++ {
		n := int(next.Add(1) - 1)
		if n >= l.requests {
			return nil
		}
		begin := l.now()
		if done%often == 0 || begin.Sub(renewed) > l.patience {
			renewed = begin
			if err := conn.SetDeadline(begin.Add(2 * l.patience)); err != nil {
				return err
			}
		}
		if _, err := conn.Write(l.request(c, n)); err != nil {
			return fmt.Errorf("request %d: %w", n, l.hangs(err))
		}
		runtime.Gosched() // the others write meanwhile, and the answer may have arrived
		if err := readAnswer(conn, answer); err != nil {
			return fmt.Errorf("request %d: %w", n, l.hangs(err))
		}
		seen.count(l.now().Sub(begin))
	}
}

func (l *load) hangs(err error) error {
	if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
		return fmt.Errorf("no answer for %s: %w", l.patience, err)
	}
	return err
}

// noContent is the required beginning of an answer.
const noContent = "HTTP/1.1 204 "

// readAnswer reads an answer that is 204 and so has no body.
func readAnswer(conn net.Conn, buf []byte) error {
	end := 0
	for {
		n, err := conn.Read(buf[end:])
		end += n
		if bytes.HasSuffix(buf[:end], []byte("\r\n\r\n")) && bytes.HasPrefix(buf, []byte(noContent)) {
			return nil
		}
		switch {
		case err != nil:
			return err
		case end >= len(noContent) && !bytes.HasPrefix(buf, []byte(noContent)):
			return fmt.Errorf("the answer is %q, want 204", bytes.TrimSpace(buf[:end]))
		case end == len(buf):
			return io.ErrShortBuffer
		}
	}
}

// latencies counts by duration: eight steps for each power of two microseconds.
type latencies struct {
	counts [8 * 40]int
	max    time.Duration
}

func (l *latencies) count(d time.Duration) {
	l.max = max(l.max, d)
	us := uint64(max(d.Microseconds(), 1))
	power := bits.Len64(us) - 1
	step := us << 3 >> power & 7
	l.counts[min(power*8+int(step), len(l.counts)-1)]++
}

func (l *latencies) add(other *latencies) {
	l.max = max(l.max, other.max)
	for i, n := range other.counts {
		l.counts[i] += n
	}
}

// quantile returns the least duration that a part of all, from 0 to 1, did not
// exceed; it is too large by an eighth at most.
func (l *latencies) quantile(part float64) time.Duration {
	all := 0
	for _, n := range l.counts {
		all += n
	}
	rest := int(part * float64(all))
	for i, n := range l.counts {
		if rest -= n; rest < 0 {
			upper := uint64(8+i%8+1) << (i / 8) >> 3
			return min(time.Duration(upper)*time.Microsecond, l.max)
		}
	}
	return l.max
}

// post returns a request with these header lines and a body.
func post(address, head, body string) []byte {
	return []byte("POST / HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: tandem-bench\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n" + head + "\r\n" + body)
}
