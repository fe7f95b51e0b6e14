package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Consumer is the consumer of a cluster and function in a stream.
type Consumer struct {
	// Stream is the stream's name, with the domain if it is in another one, and Cluster the
	// consumer's.
	Stream, Cluster string

	// Head is a sequence: no message with it or a higher one was delivered.
	Head uint64

	// Floor is a sequence: every message below it is acknowledged.
	Floor uint64

	// Unacknowledged is the number of messages that are not acknowledged, delivered or not.
	Unacknowledged uint64

	// Pulling reports that a process is waiting for messages.
	Pulling bool
}

// StreamConsumers is a stream with the consumers of a function.
type StreamConsumers struct {
	// Name is the stream's name, with the domain if it is in another one.
	Name string
	Extent
	Consumers []Consumer
}

// ConsumersOf returns the streams with one of the origins, or with a consumer of the function in
// one of the clusters: all streams of the server's domain, and those of the domains.
func (c *Conn) ConsumersOf(ctx context.Context, function string, clusters, origins, domains []string) ([]StreamConsumers, error) {
	var found []StreamConsumers
	for _, domain := range append([]string{""}, domains...) {
		names, err := Ask(ctx, func(ctx context.Context) (names []string, err error) {
			list := c.in(domain).StreamNames(ctx)
			for name := range list.Name() {
				names = append(names, name)
			}
			return names, list.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("list the streams at %s: %w", c.where, err)
		}
		slices.Sort(names)
		for _, name := range names {
			s, err := c.consumersOf(ctx, StreamConfig{Name: name, Domain: domain}, function, clusters, origins)
			if err != nil {
				return nil, err
			}
			if len(s.Consumers) > 0 || slices.Contains(origins, s.Origin) {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

func (c *Conn) consumersOf(ctx context.Context, cfg StreamConfig, function string, clusters, origins []string) (s StreamConsumers, err error) {
	s.Name = cfg.String()
	stream, err := Ask(ctx, func(ctx context.Context) (natsjs.Stream, error) { return c.findStream(ctx, cfg) })
	if errors.Is(err, natsjs.ErrStreamNotFound) { // it was deleted in the meantime
		return s, nil
	}
	if err != nil {
		return s, err
	}
	of := &Stream{conn: c, cfg: cfg}
	for _, cluster := range clusters {
		info, err := Ask(ctx, func(ctx context.Context) (*natsjs.ConsumerInfo, error) {
			consumer, err := stream.Consumer(ctx, consumerName(cluster, function))
			if err != nil {
				return nil, err
			}
			return consumer.CachedInfo(), nil
		})
		if errors.Is(err, natsjs.ErrConsumerNotFound) || errors.Is(err, natsjs.ErrNotPullConsumer) {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("find consumer %s of stream %s: %w", consumerName(cluster, function), cfg, err)
		}
		of.consumer = info.Name
		s.Consumers = append(s.Consumers, Consumer{
			Stream: cfg.String(), Cluster: cluster, Head: info.Delivered.Stream + 1, Floor: info.AckFloor.Stream + 1,
			Unacknowledged: info.NumPending + uint64(max(info.NumAckPending, 0)), Pulling: info.NumWaiting > 0,
		})
	}
	info := stream.CachedInfo()
	if len(s.Consumers) == 0 && info.Config.Mirror == nil && !slices.Contains(origins, cfg.Name) {
		return s, nil
	}
	origin, err := of.findOrigin(ctx, stream)
	if err != nil && len(s.Consumers) == 0 {
		return s, nil // not known to be a stream of the function
	}
	if err != nil {
		return s, err
	}
	s.Extent = Extent{Origin: origin.name, Epoch: origin.epoch, First: info.State.FirstSeq, Last: info.State.LastSeq}
	return s, nil
}

// SequenceAfter returns the sequence below which a consumer of any name has acknowledged every
// message, and how many messages from there on are delivered and unacknowledged.
func (c *Conn) SequenceAfter(ctx context.Context, cfg StreamConfig, consumer string) (sequence, unacknowledged uint64, err error) {
	info, err := Ask(ctx, func(ctx context.Context) (*natsjs.ConsumerInfo, error) {
		stream, err := c.findStream(ctx, cfg)
		if err != nil {
			return nil, err
		}
		found, err := stream.Consumer(ctx, consumer)
		if err != nil {
			return nil, err
		}
		return found.CachedInfo(), nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("find consumer %s of stream %s: %w", consumer, cfg, err)
	}
	return info.AckFloor.Stream + 1, uint64(max(info.NumAckPending, 0)), nil
}

// DeleteConsumer deletes a consumer if it exists.
func (c *Conn) DeleteConsumer(ctx context.Context, consumer Consumer, function string) error {
	s := &Stream{conn: c, cfg: ParseStream(consumer.Stream), consumer: consumerName(consumer.Cluster, function)}
	return s.deleteConsumer(ctx)
}

// consumerName returns the name of the consumer of a cluster and function.
func consumerName(cluster, function string) string { return "tandem-" + cluster + "-" + function }
