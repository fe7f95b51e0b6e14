package jetstream_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// redeliverer has the methods of a reader of this package beyond eventing.Reader.
type redeliverer interface {
	eventing.Reader
	Redelivers() (below uint64, all bool)
	Reread(ctx context.Context, to uint64) (head uint64, ok bool, err error)
}

// directServers returns a server whose stream allows direct gets, and one whose stream does not.
func directServers(t *testing.T) map[string]*natstest.Server {
	t.Helper()

	servers := map[string]*natstest.Server{}
	for _, allow := range []bool{true, false} {
		server := natstest.Start(t)
		createStream(t, native(t, server), natsjs.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}, AllowDirect: allow})
		servers[fmt.Sprintf("direct get %t", allow)] = server
	}
	return servers
}

// openRereader opens a stream and returns it with its reader.
func openRereader(t *testing.T, conn *jetstream.Conn, cfg eventing.OpenConfig) (*jetstream.Stream, redeliverer) {
	t.Helper()

	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	return stream, reopen(t, stream, cfg)
}

func reopen(t *testing.T, stream *jetstream.Stream, cfg eventing.OpenConfig) redeliverer {
	t.Helper()

	cfg.LooksUp = true
	reader, err := stream.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return reader.(redeliverer)
}

// sequencesOf returns the sequences of messages.
func sequencesOf(messages []eventing.Message) (sequences []uint64) {
	for _, m := range messages {
		sequences = append(sequences, m.Sequence())
	}
	return sequences
}

func isSequences(t *testing.T, messages []eventing.Message, want ...uint64) {
	t.Helper()

	if diff := cmp.Diff(want, sequencesOf(messages)); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
}

func TestWhatAProcessLeftIsReadAgainInOrderAndAcknowledged(t *testing.T) {
	t.Parallel()

	for name, server := range directServers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			dead := connect(t, server)
			publish(t, dead, newEvents(1, 40)...)
			for i, m := range pull(t, open(t, dead, "east"), 30) {
				if i > 1 && i%3 == 0 {
					if err := m.Ack(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := dead.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			deleteMessages(t, server, 5, 6, 20)
			created := createdAt(t, server)

			_, reader := openRereader(t, connect(t, server), eventing.OpenConfig{Gapless: true})
			if below, all := reader.Redelivers(); below != 31 || !all {
				t.Errorf("messages below %d are redelivered, all %t", below, all)
			}
			messages := pull(t, reader, 27+10)
			isSequences(t, messages, except(1, 40, 5, 6, 20)...)
			if below, all := reader.Redelivers(); below != 0 || !all {
				t.Errorf("messages below %d are still redelivered, all %t", below, all)
			}
			for i, m := range messages {
				if want := fmt.Sprintf("test-%06d", m.Sequence()); m.Event().ID() != want {
					t.Errorf("message %d is %s, want %s", i, m.Event().ID(), want)
				}
			}
			acknowledge(t, reader, messages, 41)
			if now := createdAt(t, server); !now.Equal(created) {
				t.Error("the consumer was created again")
			}
		})
	}
}

func TestMessagesThatAreAcknowledgedAreReadAgainAndCountUntilThen(t *testing.T) {
	t.Parallel()

	for name, server := range directServers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			conn := connect(t, server)
			publish(t, conn, newEvents(1, 10)...)
			first := open(t, conn, "east")
			messages := pull(t, first, 8)
			acknowledge(t, first, messages, 9)
			created := createdAt(t, server)

			stream, reader := openRereader(t, connect(t, server), eventing.OpenConfig{})
			head, ok, err := reader.Reread(t.Context(), 3)
			if head != 9 || !ok || err != nil {
				t.Fatalf("read again below %d, %t, %v", head, ok, err)
			}
			at := func(floor, unacknowledged uint64) {
				t.Helper()

				position, err := reader.Position(t.Context())
				if want := (eventing.Position{Floor: floor, Head: 9, Pending: 2, Unacknowledged: unacknowledged}); err != nil || position != want {
					t.Errorf("position %+v, %v, want %+v", position, err, want)
				}
			}
			at(3, 6)
			messages = pull(t, reader, 4)
			isSequences(t, messages, 3, 4, 5, 6)
			at(3, 6)
			for _, m := range []eventing.Message{messages[0], messages[2]} {
				if err := m.Ack(); err != nil {
					t.Fatal(err)
				}
			}
			at(4, 4)

			// The redelivery continues when the stream is opened again, even by a caller that
			// knows some of the messages.
			reader = reopen(t, stream, eventing.OpenConfig{Known: func(sequence uint64) bool { return sequence == 4 }})
			at(4, 5)
			again := pull(t, reader, 6)
			isSequences(t, again, 5, 6, 7, 8, 9, 10)
			if err := messages[1].Ack(); err != nil {
				t.Fatal(err)
			}
			acknowledge(t, reader, again, 11)
			if now := createdAt(t, server); !now.Equal(created) {
				t.Error("the consumer was created again")
			}
		})
	}
}

func TestAMessageThatIsReadAgainHasItsIdentity(t *testing.T) {
	t.Parallel()

	for name, server := range directServers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			js := native(t, server)
			for i, header := range []nats.Header{nil, {"A": {"1", "2"}}, {"Nats-Subject": {"mine"}, "Nats-Sequence": {"7"}}} {
				m := &nats.Msg{Subject: "events.a", Header: header, Data: fmt.Append(nil, "text", i)}
				if _, err := js.PublishMsg(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			conn := connect(t, server)
			messages := pull(t, open(t, conn, "east"), 3)
			_, reader := openRereader(t, conn, eventing.OpenConfig{})
			for i, m := range pull(t, reader, 3) {
				fetched, err := reader.Fetch(t.Context(), m.WithoutPayload())
				if err != nil {
					t.Fatal(err)
				}
				for _, got := range []eventing.Message{m, fetched} {
					if diff := cmp.Diff(messages[i].Event().String(), got.Event().String()); diff != "" {
						t.Errorf("message %d (-delivered +read again):\n%s", m.Sequence(), diff)
					}
				}
				if !m.Arrived().Equal(messages[i].Arrived()) {
					t.Errorf("message %d arrived at %s, want %s", m.Sequence(), m.Arrived(), messages[i].Arrived())
				}
			}
		})
	}
}

func TestManyMessagesAreLeftToTheConsumer(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	conn := connect(t, server)
	publish(t, conn, newEvents(1, 20)...)
	messages := pull(t, open(t, conn, "east"), 20)
	for _, i := range []int{0, 9, 19} {
		messages = slices.Delete(messages, i-20+len(messages), i-20+len(messages)+1)
	}
	for _, m := range messages {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := jetstream.NewStream(conn, "east", "flights", jetstream.StreamConfig{Name: "EVENTS"})
	if err != nil {
		t.Fatal(err)
	}
	stream.SetRereadLimit(19)
	reader := reopen(t, stream, eventing.OpenConfig{})
	if below, all := reader.Redelivers(); below != 0 || all {
		t.Errorf("messages below %d are redelivered, all %t", below, all)
	}
	acknowledge(t, reader, pull(t, reader, 3), 21)
	if _, ok, err := reader.Reread(t.Context(), 1); ok || err != nil {
		t.Errorf("20 messages are read again: %t, %v", ok, err)
	}
	if head, ok, err := reader.Reread(t.Context(), 2); head != 21 || !ok || err != nil {
		t.Errorf("19 messages are not read again: below %d, %t, %v", head, ok, err)
	}
}

func createdAt(t *testing.T, server *natstest.Server) time.Time {
	t.Helper()

	consumer, err := native(t, server).Consumer(t.Context(), "EVENTS", "tandem-east-flights")
	if err != nil {
		t.Fatal(err)
	}
	return consumer.CachedInfo().Created
}

func deleteMessages(t *testing.T, server *natstest.Server, sequences ...uint64) {
	t.Helper()

	stream, err := native(t, server).Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	for _, sequence := range sequences {
		if err := stream.DeleteMsg(t.Context(), sequence); err != nil {
			t.Fatal(err)
		}
	}
}

// except returns the numbers from first to last without some.
func except(first, last uint64, without ...uint64) (rest []uint64) {
	for n := first; n <= last; n++ {
		if !slices.Contains(without, n) {
			rest = append(rest, n)
		}
	}
	return rest
}
