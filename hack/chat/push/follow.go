package push

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/eventing/jetstream"
)

const (
	// types is the common prefix of the types that are pushed.
	types = "com.example.chat.push"

	// lookBack is the period before the start that is read from the stream.
	lookBack = 24 * time.Hour

	// pause is the delay before a stream that cannot be read is retried.
	pause = time.Second
)

// Follow pushes the events of a stream of outputs until ctx ends, starting with
// those of the last day. If the stream cannot be read, or does not exist yet, it
// retries every second. It acknowledges nothing, so any number of servers can read
// the stream.
func (s *Server) Follow(ctx context.Context, js natsjs.JetStream, stream string) {
	said := ""
	for ctx.Err() == nil {
		err := s.follow(ctx, js, stream)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "could not read outputs; retrying", slog.String("stream", stream), slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (s *Server) follow(ctx context.Context, js natsjs.JetStream, stream string) error {
	begin := s.cfg.Now().Add(-lookBack)
	consumer, err := js.OrderedConsumer(ctx, stream, natsjs.OrderedConsumerConfig{
		FilterSubjects: []string{jetstream.Subject(strings.ToLower(stream), types) + ".>"},
		DeliverPolicy:  natsjs.DeliverByStartTimePolicy,
		OptStartTime:   &begin,
	})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", stream, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read stream %s: %w", stream, err)
		}
		e, err := jetstream.Decode(m.Headers(), m.Data())
		if err == nil {
			err = s.hub.publish(e)
		}
		if err != nil {
			s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "skipped an output", slog.String("subject", m.Subject()), slog.Any("err", err))
		}
	}
}
