package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// Messages of a replicated stream arrive after the status that ends the request, and
// must not count as lost.
func TestAReplicatedStreamIsReadWithoutWaitingForAckWait(t *testing.T) {
	t.Parallel()

	c := natstest.StartCluster(t)
	conn, err := jetstream.Connect(t.Context(), c.URL(), jetstream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	createStream(t, nativeTo(t, c.URL()), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, Replicas: 3})
	const events = 500
	publish(t, conn, newEvents(1, events)...)
	for _, tt := range []struct{ n, bytes int }{
		{n: 10, bytes: 1 << 20},         // ended by the number of messages
		{n: 1000, bytes: 4000},          // by their size
		{n: 10, bytes: 1},               // each larger than what there is room for
		{n: events, bytes: 1 << 20},     // ended after all of them
		{n: 2 * events, bytes: 1 << 20}, // by the time
	} {
		reader := open(t, conn, fmt.Sprintf("n%d-b%d", tt.n, tt.bytes))
		begun := time.Now()
		moved, late, stalls := begun, false, eventtest.Stalls(t)
		seen := map[uint64]int{}
		for len(seen) < events {
			most, room, before := 0, 0, len(seen)
			err := reader.Pull(t.Context(), tt.n, tt.bytes, func(m eventing.Message) {
				seen[m.Sequence()]++
				most++
				room += m.Size()
				if err := m.Ack(); err != nil {
					t.Error(err)
				}
			})
			if err != nil && len(seen) == 0 && strings.Contains(err.Error(), "503") && time.Since(begun) < 30*time.Second {
				// A new consumer has no leader yet, and the servers answer so.
				reader = open(t, conn, fmt.Sprintf("n%d-b%d", tt.n, tt.bytes))
				continue
			}
			if err != nil && strings.Contains(err.Error(), "did not arrive") && stalls() > time.Second {
				// This process stalled for the 2 s in which the messages had to arrive. The
				// server redelivers them.
				late, reader = true, open(t, conn, fmt.Sprintf("n%d-b%d", tt.n, tt.bytes))
				continue
			}
			if err != nil {
				t.Fatalf("%+v: %v", tt, err)
			}
			if len(seen) > before {
				moved = time.Now()
			}
			if most > tt.n || room > tt.bytes && most > 1 {
				t.Errorf("%+v: %d messages of %d bytes came at once", tt, most, room)
			}
			if time.Since(moved) > 60*time.Second {
				t.Fatalf("%+v: no message came for %s, which is about AckWait; %d are here", tt, time.Since(moved), len(seen))
			}
		}
		for sequence, times := range seen {
			if times != 1 && !late {
				t.Errorf("%+v: message %d came %d times", tt, sequence, times)
			}
		}
		eventtest.Eventually(t, "all are acknowledged", func() bool {
			p, err := reader.Position(t.Context())
			return err == nil && p.Floor == events+1 && p.Unacknowledged == 0
		})
	}
}

func TestADeletedConsumerIsNoticed(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	if err := conn.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	reader := open(t, conn, "east")
	failed := make(chan error, 1)
	go func() {
		var err error
		for err == nil && t.Context().Err() == nil {
			err = reader.Pull(t.Context(), 10, 1<<20, func(eventing.Message) {})
		}
		failed <- err
	}()
	js := native(t, server)
	eventtest.Eventually(t, "the request is there", func() bool {
		consumer, err := js.Consumer(t.Context(), "EVENTS", "tandem-east-flights")
		return err == nil && consumer.CachedInfo().NumWaiting > 0
	})
	if err := js.DeleteConsumer(t.Context(), "EVENTS", "tandem-east-flights"); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-failed, "request messages: the server answers 409 Consumer Deleted")
}
