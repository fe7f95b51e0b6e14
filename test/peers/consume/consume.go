package consume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Variable is the environment variable with a process's [Config].
const Variable = "TANDEM_PEERS_CONSUMER"

// AckWait is the time after which the stream redelivers the messages of a dead
// consumer, its default.
const AckWait = 30 * time.Second

// Config configures a process.
type Config struct {
	Peer    string `json:"peer"`
	Cluster string `json:"cluster"`

	DatabaseURL string `json:"database_url"`
	NATSURL     string `json:"nats_url"`

	// Concurrency is how many events are processed at a time, each with a
	// connection to the database.
	Concurrency int `json:"concurrency"`

	// Shared makes both clusters read the stream through one durable consumer,
	// so that each event is delivered to one of them. Otherwise each cluster
	// has a consumer of its own and receives every event.
	Shared bool `json:"shared"`
}

// Durable is the name of the consumer in the stream.
func (c Config) Durable() string {
	if c.Shared {
		return "peers"
	}
	return "peers-" + c.Cluster
}

type peer func(context.Context, Config) error

var peers = map[string]peer{
	"by-hand":    func(ctx context.Context, c Config) error { return byHand(ctx, c, stepwise) },
	"by-hand-1":  func(ctx context.Context, c Config) error { return byHand(ctx, c, atOnce) },
	"watermill":  watermillConsumer,
	"dbos":       func(ctx context.Context, c Config) error { return dbosConsumer(ctx, c, false) },
	"dbos-queue": func(ctx context.Context, c Config) error { return dbosConsumer(ctx, c, true) },
	"river":      riverConsumer,
}

// Child runs a consumer if this process was started as one, and reports whether
// it was. It returns when it receives a signal to end.
func Child() bool {
	text := os.Getenv(Variable)
	if text == "" {
		return false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, text); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
	return true
}

func run(ctx context.Context, text string) error {
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return fmt.Errorf("read %s: %w", Variable, err)
	}
	do, found := peers[c.Peer]
	if !found {
		return fmt.Errorf("unknown peer %q", c.Peer)
	}
	return do(ctx, c)
}

// logger returns a logger for warnings and errors.
func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// openPool opens at most that many connections.
func openPool(ctx context.Context, c Config, connections int) (*pgxpool.Pool, error) {
	settings, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		return nil, fmt.Errorf("read the database's URL: %w", err)
	}
	settings.MaxConns = int32(connections)
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return pool, nil
}

// natsTimeout bounds a request to NATS, and the connection. It is long because a peer ends
// after an error, and a busy machine must not cause one.
const natsTimeout = 30 * time.Second

// openNATS connects to the stream.
func openNATS(c Config) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(c.NATSURL, nats.MaxReconnects(-1), nats.Timeout(natsTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("connect to NATS: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(natsTimeout))
	if err != nil {
		return nil, nil, fmt.Errorf("set up JetStream: %w", err)
	}
	return nc, js, nil
}

// pull reads the stream through the durable consumer and forwards messages until ctx
// is done.
func pull(ctx context.Context, js jetstream.JetStream, c Config, messages chan<- jetstream.Msg) error {
	consumer, err := js.CreateOrUpdateConsumer(ctx, InputStream, jetstream.ConsumerConfig{
		Durable: c.Durable(), AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait, MaxAckPending: maxAckPending,
	})
	if err != nil {
		return fmt.Errorf("make consumer %s: %w", c.Durable(), err)
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		select {
		case messages <- m:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(pullMessages))
	if err != nil {
		return fmt.Errorf("read stream %s: %w", InputStream, err)
	}
	defer consuming.Stop()
	<-ctx.Done()
	return ctx.Err()
}

const (
	// pullMessages is the client's default: enough that no worker waits for the
	// stream, and few enough that two clusters that share a consumer also share
	// the work.
	pullMessages = 500

	// maxAckPending is well above the number that any peer holds.
	maxAckPending = 10_000

	// tryAgain is the redelivery delay of an event whose processing failed.
	tryAgain = time.Second
)

// work handles messages in as many goroutines as the concurrency. If handle fails,
// the message is redelivered.
func work(ctx context.Context, js jetstream.JetStream, c Config, handle func(context.Context, departure) error, beside ...func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	messages := make(chan jetstream.Msg)
	group.Go(func() error { return pull(ctx, js, c, messages) })
	for range c.Concurrency {
		group.Go(func() error {
			for {
				var m jetstream.Msg
				select {
				case m = <-messages:
				case <-ctx.Done():
					return ctx.Err()
				}
				d, err := read(m.Headers().Get, m.Data())
				if err != nil {
					return err
				}
				if err = handle(ctx, d); err == nil {
					err = m.Ack()
				} else {
					err = errors.Join(err, m.NakWithDelay(tryAgain))
				}
				if err != nil && ctx.Err() == nil {
					logger().LogAttrs(ctx, slog.LevelWarn, "could not process the event; it will be redelivered", slog.String("event_id", d.ID), slog.Any("err", err))
				}
			}
		})
	}
	for _, do := range beside {
		group.Go(func() error { return do(ctx) })
	}
	return group.Wait()
}
