package jetstream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/eventing/devcluster/natstest"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// A caller with a deadline of minutes does not spend them on one request that is never
// answered.
func TestARequestThatIsNeverAnsweredIsRepeated(t *testing.T) {
	t.Parallel()

	cfg := jetstream.StreamConfig{Name: "EVENTS"}
	history := func(ctx context.Context, conn *jetstream.Conn) error {
		read := 0
		err := conn.History(ctx, cfg, 1, 10, func(jetstream.Past) error {
			read++
			return nil
		})
		if err == nil && read != 10 {
			err = errors.New("not all messages are read")
		}
		return err
	}
	sequenceAt := func(ctx context.Context, conn *jetstream.Conn) error {
		sequence, err := conn.SequenceAt(ctx, cfg, time.Unix(0, 0))
		if err == nil && sequence != 1 {
			err = errors.New("another sequence")
		}
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, tt := range []struct {
		name, subject string
		do            func(context.Context, *jetstream.Conn) error
	}{
		{"history, stream", "$JS.API.STREAM.INFO.", history},
		{"history, consumer", "$JS.API.CONSUMER.CREATE.", history},
		{"history, info", "$JS.API.CONSUMER.INFO.", history},
		{"history, messages", "$JS.API.CONSUMER.MSG.NEXT.", history},
		{"sequence, stream", "$JS.API.STREAM.INFO.", sequenceAt},
		{"sequence, consumer", "$JS.API.CONSUMER.CREATE.", sequenceAt},
		{"sequence, info", "$JS.API.CONSUMER.INFO.", sequenceAt},
		{"sequence, messages", "$JS.API.CONSUMER.MSG.NEXT.", sequenceAt},
		{"stream to be found", "$JS.API.STREAM.INFO.", func(ctx context.Context, conn *jetstream.Conn) error {
			return conn.EnsureStream(ctx, cfg)
		}},
		{"stream to be made", "$JS.API.STREAM.CREATE.", func(ctx context.Context, conn *jetstream.Conn) error {
			return conn.EnsureStream(ctx, jetstream.StreamConfig{Name: "OTHERS"})
		}},
		{"publish", "events.", func(ctx context.Context, conn *jetstream.Conn) error {
			publisher, err := jetstream.NewPublisher(conn, cfg)
			if err != nil {
				return err
			}
			if err := publisher.Publish(ctx, newEvents(11, 10)); err != nil {
				return err
			}
			extent, err := conn.Extent(ctx, cfg)
			if err == nil && extent.Last != 20 {
				err = errors.New("not every event is stored once")
			}
			return err
		}},
		{"position", "$JS.API.CONSUMER.INFO.", func(ctx context.Context, conn *jetstream.Conn) error {
			stream, err := jetstream.NewStream(conn, "east", "flights", cfg)
			if err != nil {
				return err
			}
			reader, err := openRepeatedly(ctx, stream)
			if err != nil {
				return err
			}
			_, err = reader.Position(ctx)
			return err
		}},
	} {
		server := natstest.Start(t)
		publish(t, connect(t, server), newEvents(1, 10)...)
		losing := server.LoseOne(t, tt.subject)
		conn, err := jetstream.Connect(t.Context(), losing.URL(), jetstream.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		if err := conn.Wait(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { // not a parallel subtest, because each waits for most of its time
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			if err := tt.do(ctx, conn); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if losing.Seen() < 2 {
				t.Errorf("%s: the request was sent %d times: none was lost", tt.name, losing.Seen())
			}
		})
	}
}

// openRepeatedly opens a stream like a source: again after an error.
func openRepeatedly(ctx context.Context, stream eventing.Stream) (reader eventing.Reader, err error) {
	for ctx.Err() == nil {
		if reader, err = stream.Open(ctx, eventing.OpenConfig{}); err == nil {
			return reader, nil
		}
	}
	return nil, err
}
