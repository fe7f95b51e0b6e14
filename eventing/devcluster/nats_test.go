package devcluster_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/supervisor"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	tandemjs "github.com/tandem-fn/tandem/eventing/jetstream"
)

var natsProgram = sync.OnceValues(func() (string, error) {
	dir, err := pgtest.ProcessDir()
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "nats")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", program, "github.com/tandem-fn/tandem/hack/nats").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build hack/nats: %w: %s", err, out)
	}
	return program, err
})

func buildNATS(t *testing.T) string {
	t.Helper()
	program, err := natsProgram()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func TestNATSKeepsWhatItAcknowledgedWhenKilled(t *testing.T) {
	t.Parallel()

	sup := newSupervisor(t, supervisor.Config{RestartDelay: 50 * time.Millisecond})
	server, err := devcluster.StartNATS(t.Context(), sup, devcluster.NATSConfig{Program: buildNATS(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if got := server.SyncInterval(); got != "2m" {
		t.Errorf("sync interval %q, want the server's default", got)
	}
	js := natstest.JetStream(t, server.URL())
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 500
	for range messages {
		if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Process().Kill(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "it runs again", func() bool { return server.Process().Restarts() == 1 })
	if err := server.WaitUntilReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventtest.Eventually(t, "the stream answers", func() bool { _, err := stream.Info(t.Context()); return err == nil })
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs != messages {
		t.Errorf("%d messages after the kill, want all %d that were acknowledged", info.State.Msgs, messages)
	}
}

func TestNATSSaysThatItsPortIsTaken(t *testing.T) {
	t.Parallel()

	program := buildNATS(t)
	sup := newSupervisor(t, supervisor.Config{})
	first, err := devcluster.StartNATS(t.Context(), sup, devcluster.NATSConfig{Program: program, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	_, err = devcluster.StartNATS(t.Context(), newSupervisor(t, supervisor.Config{}),
		devcluster.NATSConfig{Program: program, Dir: t.TempDir(), Port: first.Port()})
	if err == nil || !strings.Contains(err.Error(), "is in use") {
		t.Errorf("second server on one port: %v, want that it is in use", err)
	}
}

func TestThreeServersShareAJetStreamThatOutlivesOneOfThem(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d := newDeployment(t, devcluster.Config{
		Dir: t.TempDir(), Programs: devcluster.Programs{NATS: buildNATS(t)}, NATS: &devcluster.NATSConfig{Servers: 3}, Linked: true,
		Streams: []tandemjs.StreamConfig{{Name: "S", Replicas: 3}},
	})
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nats-1+nats-2", "nats-1+nats-3", "nats-2+nats-3"} {
		if there, back := d.Link(name).Bytes(); there == 0 || back == 0 {
			t.Errorf("%d and %d bytes have crossed link %s, want a route over it", there, back, name)
		}
	}
	js, err := jetstream.New(d.NC)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := tandemjs.Ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, "S") })
	if err != nil {
		t.Fatal(err)
	}
	destroyed := false
	for !destroyed && ctx.Err() == nil {
		info, err := tandemjs.Ask(ctx, func(ctx context.Context) (*jetstream.StreamInfo, error) { return stream.Info(ctx) })
		if err != nil || info.Cluster == nil { // for example because the stream was created twice
			continue
		}
		for _, s := range d.NATS {
			if s.Process().Name() == info.Cluster.Leader {
				s.Process().Destroy()
				destroyed = true
			}
		}
	}
	for ctx.Err() == nil {
		// A message that reaches the leader while it shuts down is never answered.
		if err = tandemjs.Do(ctx, func(ctx context.Context) error { _, err := js.Publish(ctx, "s.a", nil); return err }); err == nil {
			return
		}
	}
	t.Fatalf("the stream takes nothing: %v", err)
}
