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

	for i, m := range pull(t, open(t, p, "east"), len(events)) {
		if got, want := m.Event().String(), events[i].String(); got != want {
			t.Fatalf("message %d is %s, want %s", i, got, want)
		}
		if m.Sequence() != uint64(i+1) {
			t.Fatalf("message %d has sequence %d", i, m.Sequence())
		}
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
	case <-time.After(patience):
		t.Error("Pull goes on though its context ended")
	}
}

func floor(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	messages := pull(t, reader, 6)
	acked := func(sequences ...int) {
		for _, s := range sequences {
			ack(t, messages[s-1])
		}
	}
	want := func(floor, unacknowledged uint64) {
		t.Helper()

		want := eventing.Position{Floor: floor, Head: 7, Pending: 4, Unacknowledged: unacknowledged}
		eventually(t, "the position is right", func() error {
			got, err := reader.Position(t.Context())
			if err == nil && got != want {
				err = fmt.Errorf("it is %+v, want %+v", got, want)
			}
			if err == nil || got.Floor <= want.Floor {
				return err
			}
			t.Fatalf("the floor is %d while %d is not acknowledged", got.Floor, want.Floor)
			return nil
		})
	}

	want(1, 6)
	acked(6, 3, 2)
	want(1, 3)
	acked(1)
	want(4, 2)
	acked(5, 4)
	want(7, 0)
}

func deadReader(t *testing.T, server Server) {
	dead := server.Connect(t)
	publish(t, dead, newEvents(1, 10)...)
	ack(t, pull(t, open(t, dead, "east"), 10)[2:8]...)
	dead.Close()

	begun := time.Now() //nolint:forbidigo // how long a person waits
	reader := open(t, server.Connect(t), "east")
	got := pull(t, reader, 4)
	if diff := cmp.Diff([]uint64{1, 2, 9, 10}, sequences(got)); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	if took := time.Since(begun); took > 30*time.Second { //nolint:forbidigo // how long a person waits
		t.Errorf("they came after %s, want soon", took)
	}
	ack(t, got...)
	nothing(t, reader)
}

func release(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 1)...)
	reader := open(t, p, "east")
	for range 3 {
		m := pull(t, reader, 1)[0]
		if m.Sequence() != 1 {
			t.Fatalf("sequence %d, want 1", m.Sequence())
		}
		if err := m.Nak(0); err != nil {
			t.Fatal(err)
		}
	}
	ack(t, pull(t, reader, 1)...)
	nothing(t, reader)
}

func releaseAfter(t *testing.T, server Server) {
	const unit = 500 * time.Millisecond
	p := server.Connect(t)
	publish(t, p, newEvents(1, 3)...)
	reader := open(t, p, "east")
	begun := time.Now() //nolint:forbidigo // how long the stream waits
	for _, m := range pull(t, reader, 3) {
		if err := m.Nak(time.Duration(3-m.Sequence()) * unit); err != nil {
			t.Fatal(err)
		}
	}
	got := pull(t, reader, 3)
	if diff := cmp.Diff([]uint64{3, 2, 1}, sequences(got)); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	if took := time.Since(begun); took < 2*unit { //nolint:forbidigo // how long the stream waits
		t.Errorf("all came within %s", took)
	}
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

	unknown := errors.New("nobody can say")
	_, err := p.Stream(t, "east").Open(t.Context(), eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) {
		return 0, unknown
	}})
	if !errors.Is(err, unknown) {
		t.Errorf("Open while nobody can say where to begin: %v", err)
	}

	asked := 0
	reader := openWith(t, p, "east", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) {
		asked++
		return 8, nil
	}})
	got := pull(t, reader, 3)
	if diff := cmp.Diff([]uint64{8, 9, 10}, sequences(got)); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	if asked != 1 {
		t.Errorf("asked %d times where to begin, want 1", asked)
	}
	ack(t, got...)

	reader = openWith(t, p, "east", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) { return 2, nil }})
	nothing(t, reader)
	if got := pull(t, openWith(t, p, "west", eventing.OpenConfig{Begin: func(context.Context, string, string) (uint64, error) { return 1000, nil }}), 1); got[0].Sequence() != 1 {
		t.Errorf("a place that is to begin where the stream has not got to begins with %d, want 1", got[0].Sequence())
	}
}

func outage(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	ack(t, pull(t, reader, 4)...)
	eventually(t, "the stream has heard of it", func() error {
		position, err := reader.Position(t.Context())
		if err == nil && position.Floor != 5 {
			err = fmt.Errorf("floor %d", position.Floor)
		}
		return err
	})
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		for reader.Pull(t.Context(), 10, 1<<20, func(eventing.Message) {}) == nil {
		}
	}()
	server.Stop()
	select {
	case <-failed:
	case <-time.After(patience):
		t.Fatal("Pull does not notice that the server has gone")
	}
	server.Restart(t)

	publisher := p.Publisher(t)
	eventually(t, "events are stored again", func() error { return publisher.Publish(t.Context(), newEvents(11, 1)) })
	// What was acknowledged shortly before the end may come again, what was not must.
	seen := map[uint64]bool{}
	for reader := open(t, p, "east"); !seen[11]; {
		for _, m := range pull(t, reader, 1) {
			seen[m.Sequence()] = true
			ack(t, m)
		}
	}
	for sequence := uint64(5); sequence <= 11; sequence++ {
		if !seen[sequence] {
			t.Errorf("message %d did not come again", sequence)
		}
	}
}

func rewind(t *testing.T, server Server) {
	p := server.Connect(t)
	publish(t, p, newEvents(1, 10)...)
	reader := open(t, p, "east")
	position := func(want eventing.Position) {
		t.Helper()

		eventually(t, "the position is right", func() error {
			got, err := reader.Position(t.Context())
			if err == nil && got != want {
				err = fmt.Errorf("it is %+v, want %+v", got, want)
			}
			return err
		})
	}
	ack(t, pull(t, reader, 8)...)
	position(eventing.Position{Floor: 9, Head: 9, Pending: 2})
	if head, err := reader.Rewind(t.Context(), 9); err != nil || head != 0 {
		t.Errorf("rewound to where it is: from %d, %v, want nothing to do", head, err)
	}
	if head, err := reader.Rewind(t.Context(), 3); err != nil || head != 9 {
		t.Errorf("rewound from %d, %v, want from 9", head, err)
	}
	want := eventing.Position{Floor: 3, Head: 3, Pending: 8}
	if got, err := reader.Position(t.Context()); err != nil || got != want {
		t.Fatalf("position %+v, %v right after the rewind, want %+v", got, err, want)
	}
	if diff := cmp.Diff([]uint64{3, 4, 5, 6, 7, 8, 9, 10}, sequences(pull(t, reader, 8))); diff != "" {
		t.Errorf("sequences (-want +got):\n%s", diff)
	}
	p.Close() // and it stays so for whoever comes after
	if diff := cmp.Diff(uint64(3), pull(t, open(t, server.Connect(t), "east"), 1)[0].Sequence()); diff != "" {
		t.Errorf("first sequence after a restart (-want +got):\n%s", diff)
	}
}
