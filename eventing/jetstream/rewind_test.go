package jetstream_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestARewoundReaderGivesAgainWhatWasAcknowledged(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publish(t, conn, newEvents(1, 10)...)
	reader := open(t, conn, "east")
	rewind := func(to, want uint64) {
		t.Helper()

		head, err := reader.Rewind(t.Context(), to)
		if err != nil || head != want {
			t.Errorf("rewound to %d from %d, %v, want from %d", to, head, err, want)
		}
	}
	rewind(0, 0) // nothing was delivered
	rewind(5, 0)

	messages := pull(t, reader, 8)
	rewind(3, 0) // and nothing was acknowledged
	for _, m := range messages {
		if m.Sequence() == 3 || m.Sequence() == 7 {
			continue
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventtest.Eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Unacknowledged == 2
	})
	rewind(9, 0)
	rewind(3, 9)
	position, err := reader.Position(t.Context())
	if want := (eventing.Position{Floor: 3, Head: 3, Pending: 8}); err != nil || position != want {
		t.Errorf("position %+v, %v, want %+v", position, err, want)
	}
	rewind(3, 0) // repeating it has no effect
	for i, m := range pull(t, reader, 8) {
		if want := uint64(3 + i); m.Sequence() != want {
			t.Errorf("message %d came, want %d", m.Sequence(), want)
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventtest.Eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Floor == 11
	})
	rewind(0, 11)

	// The consumer is unchanged.
	consumer, err := native(t, server).Consumer(t.Context(), "EVENTS", "tandem-east-flights")
	if err != nil {
		t.Fatal(err)
	}
	if cfg := consumer.CachedInfo().Config; cfg.AckPolicy != natsjs.AckExplicitPolicy || cfg.MaxDeliver != -1 || cfg.Metadata["tandem-origin"] == "" {
		t.Errorf("the consumer is recreated as %+v", cfg)
	}
}

func TestWhatAStreamHasDroppedIsNotReadAgain(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	js := native(t, server)
	if _, err := js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Retention: natsjs.InterestPolicy}); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server)
	reader := open(t, conn, "east")
	for range 5 {
		if _, err := js.Publish(t.Context(), "events.a", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range pull(t, reader, 5)[1:] {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventtest.Eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Unacknowledged == 1
	})
	if head, err := reader.Rewind(t.Context(), 1); err != nil || head != 0 {
		t.Errorf("rewound from %d, %v", head, err)
	}
	// Deleting the consumer would have dropped the unacknowledged message.
	stream, err := js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages are left, want the one that is not acknowledged", n)
	}
}

// A source that ends in the middle of a rewind leaves a consumer that can be opened.
func TestARewindRunsToItsEndThoughItsCallerIsGone(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	losing := server.LoseOne(t, "$JS.API.CONSUMER.DELETE.")
	conn, err := jetstream.Connect(t.Context(), losing.URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if err := conn.Wait(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	publish(t, conn, newEvents(1, 10)...)
	reader := open(t, conn, "east")
	acknowledge(t, reader, pull(t, reader, 8), 9)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for losing.Seen() == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel() // like a restart
	}()
	if head, err := reader.Rewind(ctx, 3); err != nil || head != 9 {
		t.Errorf("rewound from %d, %v, want from 9", head, err)
	}
	if losing.Seen() < 2 {
		t.Error("the request to delete was not lost")
	}
	if got := pull(t, open(t, conn, "east"), 8); got[0].Sequence() != 3 {
		t.Errorf("message %d comes first, want 3", got[0].Sequence())
	}
}

// The server keeps a consumer whose files an interrupted deletion has removed, and
// rejects every change of it.
func TestADamagedConsumerIsCreatedAgain(t *testing.T) {
	t.Parallel()

	for _, tt := range []struct {
		name  string
		begin uint64 // the sequence of a due rewind
		want  uint64
	}{
		{"at its floor", 0, 5},
		{"where a rewind is due", 3, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			var dir string
			s := natstest.StartWith(t, func(o *natsserver.Options) { dir = o.StoreDir })
			conn := connect(t, s)
			publish(t, conn, newEvents(1, 10)...)
			reader := open(t, conn, "east")
			acknowledge(t, reader, pull(t, reader, 8)[:4], 5)

			found := 0
			if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() && d.Name() == "tandem-east-flights" {
					found++
					return os.RemoveAll(path)
				}
				return nil
			}); err != nil || found == 0 {
				t.Fatalf("%d folders of the consumer are removed, %v", found, err)
			}
			stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
			if err != nil {
				t.Fatal(err)
			}
			var again eventing.Reader
			eventtest.Eventually(t, "the stream is open", func() bool {
				again, err = stream.Open(t.Context(), eventing.OpenConfig{
					MaxOutstanding: 1000, // so that the consumer must be changed
					Begin:          func(context.Context, string, string) (uint64, error) { return tt.begin, nil },
				})
				// The server's own write of the consumer's state may meet the removed folder at
				// the same time. A source opens the stream again.
				if refused := new(natsjs.APIError); err != nil && (!errors.As(err, &refused) || refused.ErrorCode != storeFailed) {
					t.Fatal(err)
				}
				return err == nil
			})
			if got := pull(t, again, int(11-tt.want)); got[0].Sequence() != tt.want {
				t.Errorf("message %d comes first, want %d", got[0].Sequence(), tt.want)
			}
		})
	}
}

// storeFailed is the error code of a server that cannot store a consumer's state.
const storeFailed = 10012

// acknowledge acknowledges messages and waits until the reader's floor is floor.
func acknowledge(t *testing.T, reader eventing.Reader, messages []eventing.Message, floor uint64) {
	t.Helper()

	for _, m := range messages {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	eventtest.Eventually(t, "it is acknowledged", func() bool {
		position, err := reader.Position(t.Context())
		return err == nil && position.Floor == floor
	})
}
