package offsetstream_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/internal/offsetstream"
	"github.com/tandem-fn/tandem/eventing/streamtest"
)

func TestStream(t *testing.T) {
	t.Parallel()

	streamtest.Run(t, func(*testing.T) streamtest.Server { return server{offsetstream.New("events", 1)} })
}

// server is a server with one partition.
type server struct{ *offsetstream.Server }

func (s server) Connect(t *testing.T) streamtest.Process {
	t.Helper()

	client := s.Server.Connect()
	t.Cleanup(client.Close)
	return process{client}
}

func (s server) StoreForeign(t *testing.T, data string) {
	t.Helper()

	if err := s.Server.StoreForeign(0, data); err != nil {
		t.Fatal(err)
	}
}

func (s server) Recreate(*testing.T)  { s.Server.Recreate() }
func (s server) Restart(_ testing.TB) { s.Server.Restart() }

type process struct{ *offsetstream.Client }

func (p process) Stream(_ *testing.T, cluster string) eventing.Stream {
	return p.Client.Stream(cluster, 0)
}
func (p process) Publisher(*testing.T) eventing.Publisher { return p.Client.Publisher() }

func store(t *testing.T, s *offsetstream.Server, ids ...string) {
	t.Helper()

	var events []event.Event
	for _, id := range ids {
		events = append(events, eventtest.NewEvent(id))
	}
	if err := s.Store(0, events...); err != nil {
		t.Fatal(err)
	}
}

// read reads and acknowledges messages until Pull returns none, and returns their ids.
func read(t *testing.T, r eventing.Reader, n int) (ids []string, err error) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(ids) < n && err == nil && ctx.Err() == nil {
		err = r.Pull(ctx, n-len(ids), 1<<20, func(m eventing.Message) {
			ids = append(ids, m.Event().ID())
			if ackErr := m.Ack(); ackErr != nil {
				t.Error(ackErr)
			}
		})
	}
	return ids, err
}

func open(t *testing.T, c *offsetstream.Client) eventing.Reader {
	t.Helper()

	r, err := c.Stream("east", 0).Open(t.Context(), eventing.OpenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestATruncatedPartitionIsReportedToARunningReaderAndToTheNext(t *testing.T) {
	t.Parallel()

	s := offsetstream.New("events", 1)
	store(t, s, "a", "b", "c", "d")
	running := open(t, s.Connect())
	if _, err := read(t, running, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := running.Position(t.Context()); err != nil { // it commits
		t.Fatal(err)
	}
	end := s.Truncate(0, 2)
	store(t, s, "e", "f", "g")
	if _, err := read(t, running, 1); !errors.Is(err, eventing.ErrTruncated) {
		t.Errorf("Pull of the running reader: %v, want ErrTruncated", err)
	}
	if _, err := running.Position(t.Context()); !errors.Is(err, eventing.ErrTruncated) {
		t.Errorf("Position of the running reader: %v, want ErrTruncated", err)
	}
	for range 2 { // until it is rewound
		if _, err := read(t, open(t, s.Connect()), 1); !errors.Is(err, eventing.ErrTruncated) {
			t.Errorf("Pull of the next reader: %v, want ErrTruncated", err)
		}
	}
	next := open(t, s.Connect())
	position, err := next.Position(t.Context())
	if err != nil || position.Floor != end {
		t.Fatalf("position %+v, %v, want the floor %d", position, err, end)
	}
	if _, err := next.Rewind(t.Context(), position.Floor); err != nil {
		t.Fatal(err)
	}
	got, err := read(t, next, 3)
	if diff := cmp.Diff([]string{"e", "f", "g"}, got); diff != "" || err != nil {
		t.Errorf("%v, events (-want +got):\n%s", err, diff)
	}
}

func TestASetFollowsItsAssignment(t *testing.T) {
	t.Parallel()

	s := offsetstream.New("events", 2)
	client := s.Connect()
	sets := make(chan []string, 10)
	go func() {
		_ = client.Streams("east").Watch(t.Context(), func(streams []eventing.Stream) {
			var names []string
			for _, stream := range streams {
				names = append(names, stream.Name())
			}
			sets <- names
		})
	}()
	want := func(names ...string) {
		t.Helper()

		select {
		case got := <-sets:
			if !slices.Equal(got, names) {
				t.Errorf("partitions %v, want %v", got, names)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("partitions %v are not reported", names)
		}
	}
	want("events/0", "events/1")
	s.AddPartition()
	want("events/0", "events/1", "events/2")
	s.Assign(client, 2)
	want("events/2")
	s.Assign(client)
	want()
}
