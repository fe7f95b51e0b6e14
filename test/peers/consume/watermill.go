package consume

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// forwarderTopic is the table of the outbox, watermill_outbox.
const forwarderTopic = "outbox"

// watermillAhead is how many messages the stream delivers ahead, as a multiple of the
// subscribers. It pushes to a random subscriber: with more, the messages that are
// waiting when the first one subscribes are all queued there, while the other
// subscribers idle.
const watermillAhead = 8

// watermillSchema and watermillOffsets are the outbox of the forwarder's example.
var (
	watermillSchema  = wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: pollBatch}
	watermillOffsets = wmsql.DefaultPostgreSQLOffsetsAdapter{}
)

// watermillConsumer runs a router with one handler, whose transaction contains the
// inbox, the effects and the message for the forwarder, and the forwarder itself.
func watermillConsumer(ctx context.Context, c Config) error {
	log := watermill.NewSlogLoggerWithLevelMapping(logger(), map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug})
	pool, err := openPool(ctx, c, c.Concurrency+2)
	if err != nil {
		return err
	}
	in, err := wmnats.NewSubscriber(wmnats.SubscriberConfig{
		URL:              c.NATSURL,
		QueueGroupPrefix: c.Durable(),
		SubscribersCount: c.Concurrency,
		AckWaitTimeout:   AckWait,
		NakDelay:         wmnats.NewStaticDelay(tryAgain),
		NatsOptions:      []nats.Option{nats.MaxReconnects(-1)},
		Unmarshaler:      &wmnats.NATSMarshaler{},
		JetStream: wmnats.JetStreamConfig{
			DurablePrefix: c.Durable(),
			AckAsync:      true,
			SubscribeOptions: []nats.SubOpt{
				nats.ManualAck(), nats.AckExplicit(), nats.DeliverAll(), nats.AckWait(AckWait), nats.MaxAckPending(watermillAhead * c.Concurrency),
			},
		},
	}, log)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, log)
	if err != nil {
		return fmt.Errorf("create the router: %w", err)
	}
	router.AddMiddleware(middleware.Recoverer)
	router.AddConsumerHandler("flights", inputSubjects, in, func(m *message.Message) error {
		return watermillHandle(m, pool, log)
	})
	forward, err := watermillForwarder(c, pool, log)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return forward.Run(ctx) })
	group.Go(func() error { return router.Run(ctx) })
	return group.Wait()
}

// watermillHandle handles a message in one transaction.
func watermillHandle(m *message.Message, pool *pgxpool.Pool, log watermill.LoggerAdapter) error {
	ctx := m.Context()
	d, err := read(m.Metadata.Get, m.Payload)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, claimedEffectsSQL, d.args()...)
		if err != nil || tag.RowsAffected() == 0 || !d.late() {
			return err
		}
		out, err := d.output()
		if err != nil {
			return err
		}
		outbox, err := wmsql.NewPublisher(wmsql.TxFromPgx(tx), wmsql.PublisherConfig{SchemaAdapter: watermillSchema}, log)
		if err != nil {
			return err
		}
		publish := message.NewMessage(out.ID, message.Payload(out.Data))
		publish.Metadata = out.attributes()
		publish.SetContext(ctx)
		return forwarder.NewPublisher(outbox, forwarder.PublisherConfig{ForwarderTopic: forwarderTopic}).Publish(outputSubject, publish)
	})
}

// watermillForwarder publishes the messages in the outbox.
func watermillForwarder(c Config, pool *pgxpool.Pool, log watermill.LoggerAdapter) (*forwarder.Forwarder, error) {
	outbox, err := newOutboxSubscriber(pool, log)
	if err != nil {
		return nil, err
	}
	out, err := wmnats.NewPublisher(wmnats.PublisherConfig{
		URL:         c.NATSURL,
		NatsOptions: []nats.Option{nats.MaxReconnects(-1)},
		Marshaler:   &wmnats.NATSMarshaler{},
		JetStream:   wmnats.JetStreamConfig{TrackMsgID: true},
	}, log)
	if err != nil {
		return nil, fmt.Errorf("create the publisher: %w", err)
	}
	forward, err := forwarder.NewForwarder(outbox, out, log, forwarder.Config{ForwarderTopic: forwarderTopic})
	if err != nil {
		return nil, fmt.Errorf("create the forwarder: %w", err)
	}
	return forward, nil
}

func newOutboxSubscriber(pool *pgxpool.Pool, log watermill.LoggerAdapter) (*wmsql.Subscriber, error) {
	subscriber, err := wmsql.NewSubscriber(wmsql.BeginnerFromPgx(pool), wmsql.SubscriberConfig{
		SchemaAdapter:  watermillSchema,
		OffsetsAdapter: watermillOffsets,
		PollInterval:   pollInterval,
		ResendInterval: tryAgain,
		RetryInterval:  watermillRetry,
	}, log)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	return subscriber, nil
}

// watermillRetry is the delay before the outbox is read again after the other
// cluster's forwarder has read it, which causes a serialization error.
const watermillRetry = 50 * time.Millisecond

// PrepareWatermill creates the outbox.
func PrepareWatermill(_ context.Context, pool *pgxpool.Pool) error {
	subscriber, err := newOutboxSubscriber(pool, watermill.NopLogger{})
	if err != nil {
		return err
	}
	if err := subscriber.SubscribeInitialize(forwarderTopic); err != nil {
		return fmt.Errorf("create the outbox: %w", err)
	}
	return nil
}
