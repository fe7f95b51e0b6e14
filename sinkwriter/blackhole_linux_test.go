package sinkwriter_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/ledger"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

// network is a path to a server over a pair of virtual interfaces, one of which is in a
// network namespace of its own.
type network struct {
	t               *testing.T
	url             string
	namespace, peer string
}

// newNetwork returns a path to the server of a database URL. It skips the test, with the
// reason, if network namespaces are not available.
func newNetwork(t *testing.T, databaseURL string) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test did not run: it needs root, for a network namespace")
	}
	n := &network{t: t, namespace: fmt.Sprintf("tnd%08x", rand.Uint32())}
	near := n.namespace + "a"
	n.peer = n.namespace + "b"
	subnet := fmt.Sprintf("198.18.%d", rand.IntN(256))
	block := 4 * rand.IntN(64)
	nearAddress, farAddress := fmt.Sprintf("%s.%d", subnet, block+1), fmt.Sprintf("%s.%d", subnet, block+2)
	for _, args := range []string{
		"netns add " + n.namespace,
		"link add " + near + " type veth peer name " + n.peer + " netns " + n.namespace,
		"address add " + nearAddress + "/30 dev " + near,
		"link set " + near + " up",
		"-n " + n.namespace + " address add " + farAddress + "/30 dev " + n.peer,
		"-n " + n.namespace + " link set " + n.peer + " up",
	} {
		if err := ip(t.Context(), args); err != nil {
			t.Skipf("this test did not run: it needs a network namespace with a veth: %v", err)
		}
		if strings.HasPrefix(args, "netns add") {
			t.Cleanup(func() {
				_ = ip(context.Background(), "link delete "+near)
				_ = ip(context.Background(), "netns delete "+n.namespace)
			})
		}
	}
	var err error
	n.url, err = link.MapHosts(databaseURL, func(target string) (string, error) {
		listener, err := n.listen(net.JoinHostPort(farAddress, "0"))
		if err != nil {
			return "", err
		}
		t.Cleanup(func() { _ = listener.Close() })
		go forward(listener, target)
		return listener.Addr().String(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ip executes the ip command to change interfaces.
func ip(ctx context.Context, args string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// listen opens a listener in the namespace.
func (n *network) listen(address string) (listener net.Listener, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // permanently: the thread ends with its goroutine
		var namespace *os.File
		if namespace, err = os.Open("/run/netns/" + n.namespace); err != nil {
			return
		}
		defer namespace.Close() //nolint:errcheck // it was only read
		if err = unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		listener, err = (&net.ListenConfig{}).Listen(n.t.Context(), "tcp4", address)
	}()
	<-ended
	return listener, err
}

// forward connects the connections of a listener to a target.
func forward(listener net.Listener, target string) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", target)
		if err != nil {
			_ = near.Close()
			continue
		}
		for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
			go func() {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}()
		}
	}
}

// set brings the far interface up or down. While it is down, packets are lost.
func (n *network) set(state string) {
	n.t.Helper()
	if err := ip(context.Background(), "-n "+n.namespace+" link set "+n.peer+" "+state); err != nil {
		n.t.Error(err)
	}
}

func TestACOMMITIntoABlackHoleEndsWithinSeconds(t *testing.T) {
	t.Parallel()
	const userTimeout = 2 * time.Second
	direct := sinktest.NewDatabase(t)
	n := newNetwork(t, direct.Config().ConnString())
	cfg, err := postgres.ParseConfig(fmt.Sprintf("%s&tcp_user_timeout=%d", n.url, userTimeout.Milliseconds()), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	const commitTimeout = time.Second
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1, CommitTimeout: commitTimeout})
	if _, err := w.Commit(t.Context(), sinktest.Order("warm", 1)); err != nil {
		t.Fatal(err)
	}
	key := ledger.NewKey("orders", "/test", "once")
	begin := time.Now()
	won, err := w.Once(t.Context(), key, func(pgx.Tx) error {
		begin = time.Now()
		n.set("down")
		return nil
	})
	if err == nil {
		t.Fatalf("a COMMIT into a black hole was answered: won %t", won)
	}
	// A busy machine is slower. The kernel alone needs a quarter of an hour.
	if took := time.Since(begin); took > 20*commitTimeout {
		t.Errorf("Once returned after %s, want about %s", took, commitTimeout)
	}
	sinktest.Eventually(t, "the writer is not ready, or the connection has ended already", func() bool {
		return w.Ready() != nil || time.Since(begin) > userTimeout
	})
	sinktest.Eventually(t, "the kernel has ended the connection", func() bool { return w.Ready() == nil && pool.Stat().AcquiredConns() == 0 })
	if took := time.Since(begin); took > 20*userTimeout {
		t.Errorf("that took %s, want about %s", took, userTimeout)
	}
	n.set("up")
	if _, err := w.Commit(t.Context(), sinktest.Order("after", 1)); err != nil {
		t.Errorf("after the network is back: %v", err)
	}
	if won, err := sinktest.UntilDecided(func() (bool, error) { return w.Once(t.Context(), key, func(pgx.Tx) error { return nil }) }); err != nil || !won {
		t.Errorf("the COMMIT that vanished: won again %t, %v", won, err)
	}
}
