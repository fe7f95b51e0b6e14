package streamtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-fn/tandem/eventing"
)

func readInOrder(t *testing.T, server Server) {
	p := server.Connect(t)
	events := newEvents(1, 2000)
	publish(t, p, events...)

	var last uint64
	for i, m := range pull(t, open(t, p, "east"), len(events)) {
		if got, want := m.Event().String(), events[i].String(); got != want {
			t.Fatalf("message %d is %s, want %s", i, got, want)
		}
		if i > 0 && m.Sequence() <= last {
			t.Fatalf("message %d has sequence %d after %d", i, m.Sequence(), last)
		}
		last = m.Sequence()
		if age := time.Since(m.Arrived()); age < -time.Minute || age > time.Hour { //nolint:forbidigo // the server's clock is this computer's
			t.Fatalf("message %d arrived %s ago", i, age)
		}
		if m.Size() < len(events[i].Data()) {
			t.Fatalf("message %d takes %d bytes", i, m.Size())
		}
	}
}

func everyCluster(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	var all [][]string
	for _, cluster := range []string{"east", "west"} {
		messages := pull(t, open(t, p, cluster), 10)
		ack(t, messages...)
		all = append(all, identities(messages))
	}
	if diff := cmp.Diff(all[0], all[1]); diff != "" {
		t.Errorf("events in the clusters (-east +west):\n%s", diff)
	}
}

func pullIsBounded(t *testing.T, server Server) {
	p := server.Connect(t)
	events := newEvents(1, 20)
	const size = 10_000
	for i := range events {
		events[i].DataEncoded = fmt.Appendf(nil, "%q", strings.Repeat("x", size))
	}
	publish(t, p, events...)
	reader := open(t, p, "east")
	count := func(n, bytes int) (count int) {
		t.Helper()

		if err := reader.Pull(t.Context(), n, bytes, func(m eventing.Message) {
			count++
			ack(t, m)
		}); err != nil {
			t.Fatal(err)
		}
		return count
	}
	if got := count(3, 64<<20); got != 3 {
		t.Errorf("%d messages came, 3 were asked for", got)
	}
	if got := count(10, 4*size); got < 1 || got > 4 {
		t.Errorf("%d messages of more than %d bytes came in %d bytes", got, size, 4*size)
	}
	if got := count(10, 100); got != 1 {
		t.Errorf("%d messages came, want one alone that is larger than was asked for", got)
	}
}

func pullEnds(t *testing.T, server Server) {
	p := server.Connect(t)
	reader := open(t, p, "east")
	nothing(t, reader)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reader.Pull(ctx, 1, 1<<20, func(eventing.Message) {}) }()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Pull whose context ended: %v", err)
		}
	case <-time.After(patienceOf(t)):
		t.Error("Pull goes on though its context ended")
	}
}

func floor(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	messages := pull(t, reader, 6)
	at := sequences(messages)
	ackAt := func(indexes ...int) {
		for _, i := range indexes {
			ack(t, messages[i])
		}
	}
	// want waits until the floor is above the message before index first, and fails if it
	// passes the message at first.
	want := func(first int, unacknowledged uint64) (got eventing.Position) {
		t.Helper()

		eventually(t, "the position is right", func() (err error) {
			got, err = reader.Position(t.Context())
			switch {
			case err != nil:
				return err
			case first < len(at) && got.Floor > at[first] || got.Floor > got.Head:
				t.Fatalf("the position is %+v while %d is not acknowledged", got, at[min(first, len(at)-1)])
			case first > 0 && got.Floor <= at[first-1], got.Head <= at[5], got.Pending < 4, got.Unacknowledged != unacknowledged:
				return fmt.Errorf("it is %+v, want the floor behind message %d of %d, and %d unacknowledged", got, first, at, unacknowledged)
			}
			return nil
		})
		return got
	}

	want(0, 6)
	ackAt(5, 2, 1)
	want(0, 3)
	ackAt(0)
	want(3, 2)
	ackAt(4, 3)
	position := want(6, 0)
	rest := pull(t, reader, 4)
	if rest[0].Sequence() < position.Head {
		t.Errorf("message %d is below the head %d", rest[0].Sequence(), position.Head)
	}
	ack(t, rest...)
	nothing(t, reader)
	eventually(t, "the lag is 0", func() error {
		got, err := reader.Position(t.Context())
		if err == nil && (got.Floor != got.Head || got.Pending != 0 || got.Unacknowledged != 0) {
			err = fmt.Errorf("the position is %+v", got)
		}
		return err
	})
}

func deadReader(t *testing.T, server Server) {
	dead := server.Connect(t)
	publish(t, dead, newEvents(1, 10)...)
	reader := open(t, dead, "east")
	messages := pull(t, reader, 10)
	at := sequences(messages)
	ack(t, messages[:2]...)
	ack(t, messages[4:8]...)
	floorAbove(t, reader, at[1])
	dead.Close()

	begun := time.Now() //nolint:forbidigo // how long a person waits
	reader = open(t, server.Connect(t), "east")
	var got []uint64
	for len(got) == 0 || got[len(got)-1] < at[9] {
		m := pull(t, reader, 1)[0]
		got = append(got, m.Sequence())
		ack(t, m)
	}
	if !slices.IsSorted(got) || got[0] != at[2] {
		t.Errorf("sequences %d, want those from %d on, in order", got, at[2])
	}
	for _, sequence := range []uint64{at[2], at[3], at[8], at[9]} {
		if !slices.Contains(got, sequence) {
			t.Errorf("message %d is not redelivered", sequence)
		}
	}
	if took := time.Since(begun); took > 30*time.Second { //nolint:forbidigo // how long a person waits
		t.Errorf("redelivered after %s, want soon", took)
	}
	nothing(t, reader)
}

// floorAbove waits until the floor is above a sequence.
func floorAbove(t *testing.T, reader eventing.Reader, sequence uint64) {
	t.Helper()

	eventually(t, "the floor rises", func() error {
		position, err := reader.Position(t.Context())
		if err == nil && position.Floor <= sequence {
			err = fmt.Errorf("floor %d", position.Floor)
		}
		return err
	})
}

func release(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 1)...)
	reader := open(t, p, "east")
	for range 3 {
		if err := pull(t, reader, 1)[0].Nak(); err != nil {
			t.Fatal(err)
		}
		p.Close()
		p = server.Connect(t)
		reader = open(t, p, "east")
	}
	m := pull(t, reader, 1)[0]
	ack(t, m)
	floorAbove(t, reader, m.Sequence())
	nothing(t, reader)
}

func foreign(t *testing.T, server Server) {
	p := server.Connect(t)
	for _, data := range []string{"hello", "hello", "\xff\x00 no text"} {
		server.StoreForeign(t, data)
	}
	east := pull(t, open(t, p, "east"), 3)
	if got := east[0].Event(); got.Type() != eventing.MessageType || string(got.Data()) != "hello" {
		t.Errorf("message is %v", got)
	}
	if got := string(east[2].Event().DataEncoded); got != "\xff\x00 no text" {
		t.Errorf("data are %q", got)
	}
	ids := identities(east)
	if diff := cmp.Diff(ids, identities(pull(t, open(t, server.Connect(t), "west"), 3))); diff != "" {
		t.Errorf("identities (-east +west):\n%s", diff)
	}
	slices.Sort(ids)
	if got := len(slices.Compact(ids)); got != 3 {
		t.Errorf("%d identities for three messages", got)
	}
}

func recreate(t *testing.T, server Server) {
	read := func(data string) (epoch string, id string) {
		p := server.Connect(t)
		defer p.Close()
		server.StoreForeign(t, data)
		reader := open(t, p, "east")
		return reader.Epoch(), identities(pull(t, reader, 1))[0]
	}
	epoch, id := read("one")
	again, _ := readAgain(t, server)
	if again != epoch {
		t.Errorf("epoch %q, and then %q of the same stream", epoch, again)
	}
	server.Recreate(t)
	other, otherID := read("two")
	if epoch == other {
		t.Errorf("epoch %q of both streams", epoch)
	}
	if id == otherID {
		t.Errorf("identity %s in both streams", id)
	}
}

func readAgain(t *testing.T, server Server) (epoch, origin string) {
	t.Helper()

	reader := open(t, server.Connect(t), "west")
	return reader.Epoch(), reader.Origin()
}

func begin(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	at := sequences(pull(t, open(t, p, "north"), 10))

	unknown := errors.New("the checkpoint is unavailable")
	_, err := p.Stream(t, "east").Open(t.Context(), eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) {
		return 0, unknown
	}})
	if !errors.Is(err, unknown) {
		t.Errorf("Open while Begin fails: %v", err)
	}

	asked := 0
	reader := openWith(t, p, "east", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) {
		asked++
		return at[7], nil
	}})
	got := pull(t, reader, 3)
	if diff := cmp.Diff(at[7:], sequences(got)); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	if asked != 1 {
		t.Errorf("Begin was called %d times, want once", asked)
	}
	ack(t, got...)
	floorAbove(t, reader, at[9])

	reader = openWith(t, p, "east", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) { return at[1], nil }})
	nothing(t, reader)
	reader = openWith(t, p, "west", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) { return at[9] + 1000, nil }})
	if got := pull(t, reader, 1); got[0].Sequence() != at[0] {
		t.Errorf("a consumer that is to begin beyond the end of the stream begins with %d, want %d", got[0].Sequence(), at[0])
	}
}

func outage(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	messages := pull(t, reader, 4)
	ack(t, messages...)
	floorAbove(t, reader, messages[3].Sequence())
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		for reader.Pull(t.Context(), 10, 1<<20, func(eventing.Message) {}) == nil {
		}
	}()
	server.Stop()
	select {
	case <-failed:
	case <-time.After(patienceOf(t)):
		t.Fatal("Pull does not notice that the server has gone")
	}
	server.Restart(t)

	publisher := p.Publisher(t)
	eventually(t, "events are stored again", func() error { return publisher.Publish(t.Context(), newEvents(11, 1)) })
	// Messages that were acknowledged shortly before the end may be redelivered;
	// unacknowledged ones must be.
	seen := map[string]bool{}
	for reader := open(t, p, "east"); !seen["test-000011"]; {
		for _, m := range pull(t, reader, 1) {
			seen[m.Event().ID()] = true
			ack(t, m)
		}
	}
	for n := 5; n <= 11; n++ {
		if id := fmt.Sprintf("test-%06d", n); !seen[id] {
			t.Errorf("event %s is not redelivered", id)
		}
	}
}

func rewind(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	messages := pull(t, reader, 8)
	at := sequences(messages)
	ack(t, messages...)
	floorAbove(t, reader, at[7])
	position, err := reader.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if head, err := reader.Rewind(t.Context(), position.Floor); err != nil || head != 0 {
		t.Errorf("rewound to where it is: from %d, %v, want nothing to do", head, err)
	}
	if head, err := reader.Rewind(t.Context(), at[2]); err != nil || head != position.Head {
		t.Errorf("rewound from %d, %v, want from %d", head, err, position.Head)
	}
	got, err := reader.Position(t.Context())
	if err != nil || got.Floor <= at[1] || got.Floor > at[2] || got.Head != got.Floor || got.Pending < 8 || got.Unacknowledged != 0 {
		t.Fatalf("position %+v, %v right after the rewind to %d", got, err, at[2])
	}
	if diff := cmp.Diff(at[2:], sequences(pull(t, reader, 8))[:6]); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	p.Close() // the rewind outlives the process
	if diff := cmp.Diff(at[2], pull(t, open(t, server.Connect(t), "east"), 1)[0].Sequence()); diff != "" {
		t.Errorf("first sequence after a restart (-want +got):\n%s", diff)
	}
}
