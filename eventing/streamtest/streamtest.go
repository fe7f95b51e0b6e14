package streamtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/eventing"
)

// patienceOf bounds every wait: a minute, or half of the time that the tests have left.
func patienceOf(t *testing.T) time.Duration {
	t.Helper()
	patience := time.Minute
	if deadline, ok := t.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/2) //nolint:forbidigo // the tests' own clock
	}
	return patience
}

// Server is a server of one test, with one stream that has no messages yet.
type Server interface {
	// Connect returns a process with its own connection. It ends with the test, if not
	// before.
	Connect(t *testing.T) Process

	// StoreForeign stores a message that is not a CloudEvent.
	StoreForeign(t *testing.T, data string)

	// Recreate deletes and recreates the stream.
	Recreate(t *testing.T)

	// Stop stops the server. After Restart, at the same address, it still has
	// everything that it has acknowledged.
	Stop()
	Restart(t testing.TB)
}

// Process is the connection of one process to a [Server].
type Process interface {
	// Stream returns the stream, read for a cluster and one function.
	Stream(t *testing.T, cluster string) eventing.Stream

	// Publisher returns a publisher to the stream.
	Publisher(t *testing.T) eventing.Publisher

	// Close closes the connection, like the end of the process.
	Close()
}

// Run runs all tests. Each calls start for its own server, which ends with the test.
func Run(t *testing.T, start func(t *testing.T) Server) {
	t.Helper()

	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()

			tt.run(t, start(t))
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, server Server)
}

var tests = []test{
	{"published events are read in order and complete", readInOrder},
	{"every cluster reads every message", everyCluster},
	{"Pull bounds messages and bytes", pullIsBounded},
	{"Pull ends without messages and with its context", pullEnds},
	{"an event that is published again keeps its identity", repeats},
	{"publishers are concurrent", concurrentPublish},
	{"Publish returns nil only for stored events", publishErrors},
	{"Publish stores all events but those that it reports", publishPartly},
	{"the floor stays below unacknowledged messages", floor},
	{"unacknowledged messages of a dead reader are redelivered", deadReader},
	{"a message is redelivered after Nak", release},
	{"a message that is not a CloudEvent has an identity", foreign},
	{"a recreated stream has another epoch", recreate},
	{"a consumer is created where Begin returns", begin},
	{"rewound messages are redelivered", rewind},
	{"a server that restarts has what it acknowledged", outage},
}

// open opens the stream for a cluster.
func open(t *testing.T, p Process, cluster string) eventing.Reader {
	t.Helper()

	return openWith(t, p, cluster, eventing.OpenConfig{})
}

func openWith(t *testing.T, p Process, cluster string, cfg eventing.OpenConfig) eventing.Reader {
	t.Helper()

	stream := p.Stream(t, cluster)
	var reader eventing.Reader
	eventually(t, "the stream can be opened", func() (err error) {
		reader, err = stream.Open(t.Context(), cfg)
		return err
	})
	return reader
}

// pull returns the next n messages.
func pull(t *testing.T, reader eventing.Reader, n int) []eventing.Message {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), patienceOf(t))
	defer cancel()
	var messages []eventing.Message
	for len(messages) < n {
		if err := reader.Pull(ctx, n-len(messages), 64<<20, func(m eventing.Message) { messages = append(messages, m) }); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d messages came, want %d", len(messages), n)
		}
	}
	return messages
}

// nothing fails the test if any message arrives.
func nothing(t *testing.T, reader eventing.Reader) {
	t.Helper()

	if err := reader.Pull(t.Context(), 10, 64<<20, func(m eventing.Message) {
		t.Errorf("message %d came", m.Sequence())
	}); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, p Process, events ...event.Event) {
	t.Helper()

	if err := p.Publisher(t).Publish(t.Context(), events); err != nil {
		t.Fatal(err)
	}
}

func ack(t *testing.T, messages ...eventing.Message) {
	t.Helper()

	for _, m := range messages {
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
}

// newEvents returns n events whose numbers begin with first.
func newEvents(first, n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		e := event.New()
		e.SetID(fmt.Sprintf("test-%06d", first+i))
		e.SetSource("/test")
		e.SetType("com.example.test")
		e.SetSubject("ünïcode % \"quoted\"")
		e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC))
		e.SetExtension("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		e.SetDataContentType("application/json")
		e.DataEncoded = fmt.Appendf(nil, `{"n":%d}`, first+i)
		events[i] = e
	}
	return events
}

func sequences(messages []eventing.Message) []uint64 {
	all := make([]uint64, len(messages))
	for i, m := range messages {
		all[i] = m.Sequence()
	}
	return all
}

func identities(messages []eventing.Message) []string {
	all := make([]string, len(messages))
	for i, m := range messages {
		e := m.Event()
		all[i] = e.Source() + " " + e.ID()
	}
	return all
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()

	patience := patienceOf(t)
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
