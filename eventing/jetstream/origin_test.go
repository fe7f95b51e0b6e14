package jetstream_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/internal/eventtest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

func TestAMirrorInAnotherDomainIsItsOriginToWhoReadsIt(t *testing.T) {
	t.Parallel()

	first, second, link := natstest.StartDomains(t, "east", "west")
	east, west := connect(t, first), connect(t, second)
	if err := east.EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EAST"}); err != nil {
		t.Fatal(err)
	}
	mirror := natsjs.StreamConfig{Name: "COPY", Mirror: &natsjs.StreamSource{Name: "EAST", Domain: "east"}}
	if _, err := native(t, second).CreateStream(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	js := native(t, first)
	for i := range 5 {
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: "east.plain", Header: nats.Header{"n": {fmt.Sprint(i)}}, Data: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
	}

	origin := openStream(t, east, "east", "EAST")
	want := identities(pull(t, origin, 5))
	copied := openStream(t, west, "west", "COPY")
	if diff := cmp.Diff(want, identities(pull(t, copied, 5))); diff != "" {
		t.Errorf("identities in the mirror (-want +got):\n%s", diff)
	}
	if copied.Epoch() != origin.Epoch() || copied.Origin() != "EAST" || origin.Origin() != "EAST" {
		t.Errorf("the mirror is %s of %s, its origin is %s of %s", copied.Origin(), copied.Epoch(), origin.Origin(), origin.Epoch())
	}

	// A source in the west may name the domain, or read the origin in the east.
	for spec, cluster := range map[string]string{"COPY@west": "northwest", "EAST@east": "southwest", "COPY": "south"} {
		r := openStream(t, west, cluster, spec)
		if r.Epoch() != origin.Epoch() || r.Origin() != "EAST" {
			t.Errorf("%s is %s of %s", spec, r.Origin(), r.Epoch())
		}
	}

	// A source that already reads the mirror cannot read its origin too.
	stream, err := jetstream.NewStream(west, "west", "flights", jetstream.ParseStream("EAST@east"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Open(t.Context(), eventing.OpenConfig{})
	wantError(t, err, "streams COPY and EAST@east are both EAST")

	// While the origin is unreachable, the remembered one counts, whichever consumer
	// has it.
	link.Cut()
	for _, cluster := range []string{"west", "north"} {
		r := openStream(t, west, cluster, "COPY")
		if r.Epoch() != origin.Epoch() || r.Origin() != "EAST" {
			t.Errorf("with the link cut, it is %s of %s", r.Origin(), r.Epoch())
		}
	}
}

func TestAMirrorWhoseOriginWasNeverThereIsNotRead(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	mirror := natsjs.StreamConfig{Name: "COPY", Mirror: &natsjs.StreamSource{Name: "EAST", External: &natsjs.ExternalStream{APIPrefix: "$JS.east.API"}}}
	if _, err := native(t, server).CreateStream(t.Context(), mirror); err != nil {
		t.Fatal(err)
	}
	stream, err := jetstream.NewStream(connect(t, server), "west", "flights", jetstream.StreamConfig{Name: "COPY"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Open(t.Context(), eventing.OpenConfig{})
	wantError(t, err, "find stream EAST, of which COPY is a mirror")
}

func TestAMirrorOfAStreamThatWasMadeAnewIsFoundOut(t *testing.T) {
	t.Parallel()

	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		state natsjs.StreamState
		want  bool
	}{
		{name: "empty", state: natsjs.StreamState{}},
		{name: "its own messages", state: natsjs.StreamState{Msgs: 1, FirstTime: created.Add(time.Millisecond)}},
		{name: "clocks that disagree a little", state: natsjs.StreamState{Msgs: 1, FirstTime: created.Add(-time.Second)}},
		{name: "messages of another one", state: natsjs.StreamState{Msgs: 1, FirstTime: created.Add(-time.Minute)}, want: true},
	} {
		if got := jetstream.Older(tt.state, created); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestAStreamThatIsMissingIsNotMadeByWhoReads(t *testing.T) {
	t.Parallel()

	server := natstest.Start(t)
	for _, spec := range []string{"EVENTS", "EVENTS@west"} {
		stream, err := jetstream.NewStream(connect(t, server), "east", "flights", jetstream.ParseStream(spec))
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Open(t.Context(), eventing.OpenConfig{})
		if spec == "EVENTS" {
			wantError(t, err, "there is no stream EVENTS at nats://")
		} else if err == nil {
			t.Error("opened a stream of a domain that is not there")
		}
	}
	if _, err := native(t, server).Stream(t.Context(), "EVENTS"); !errors.Is(err, natsjs.ErrStreamNotFound) {
		t.Errorf("it is there: %v", err)
	}
}

func TestAStreamWithADomainIsNotMadeByWhoPublishes(t *testing.T) {
	t.Parallel()

	first, second, _ := natstest.StartDomains(t, "east", "west")
	publisher, err := jetstream.NewPublisher(connect(t, first), jetstream.ParseStream("EVENTS@west"))
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, publisher.Publish(t.Context(), newEvents(1, 1)), "there is no stream EVENTS@west")
	if err := connect(t, second).EnsureStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS"}); err != nil {
		t.Fatal(err)
	}
	publishWith(t, publisher, newEvents(1, 1)...)
	pull(t, openStream(t, connect(t, second), "west", "EVENTS"), 1)
}

func TestWhatIsNoStreamIsRefused(t *testing.T) {
	t.Parallel()

	for spec, want := range map[string]string{
		"":         `stream name ""`,
		"a b":      `stream name "a b"`,
		"A@B@C":    `domain "B@C" of stream A`,
		"A@b.c":    `domain "b.c" of stream A`,
		"@west":    `stream name ""`,
		"A/B@west": `stream name "A/B"`,
	} {
		_, err := jetstream.NewStream(connect(t, natstest.Start(t)), "east", "flights", jetstream.ParseStream(spec))
		wantError(t, err, want)
	}
}

func openStream(t *testing.T, conn *jetstream.Conn, cluster, spec string) eventing.Reader {
	t.Helper()

	stream, err := jetstream.NewStream(conn, cluster, "flights", jetstream.ParseStream(spec))
	if err != nil {
		t.Fatal(err)
	}
	var reader eventing.Reader
	eventtest.Eventually(t, "stream "+spec+" can be opened", func() bool {
		if reader, err = stream.Open(t.Context(), eventing.OpenConfig{}); err != nil {
			t.Log(err)
		}
		return err == nil
	})
	return reader
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()

	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}
