package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/eventing/jetstream"
)

// Bucket is the key-value bucket with the positions of feeds, in the same NATS
// as the stream, so that both are lost together or not at all.
const Bucket = "tandem-feed"

// Positions stores the position of a feed into a stream.
type Positions struct {
	js     natsjs.JetStream
	stream string
	feed   string
}

// position is a value of the bucket.
type position struct {
	Position int    `json:"position"`
	Epoch    string `json:"epoch"` // identifies the incarnation of the stream
}

// NewPositions returns the Positions of the feed with this name into the stream.
// Name and stream may contain letters, digits, '-' and '_'.
func NewPositions(conn *nats.Conn, stream, feed string) (*Positions, error) {
	js, err := natsjs.New(conn)
	if err != nil {
		return nil, fmt.Errorf("set up JetStream: %w", err)
	}
	return &Positions{js: js, stream: stream, feed: feed}, nil
}

// Load returns the position that was saved last; 0 if there is none, or if the
// stream has been recreated since.
func (p *Positions) Load(ctx context.Context) (int, error) { return jetstream.Ask(ctx, p.load) }

func (p *Positions) load(ctx context.Context) (int, error) {
	epoch, err := p.epoch(ctx)
	if err != nil {
		return 0, err
	}
	bucket, err := p.bucket(ctx)
	if err != nil {
		return 0, err
	}
	entry, err := bucket.Get(ctx, p.feed)
	if errors.Is(err, natsjs.ErrKeyNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read position of feed %s: %w", p.feed, err)
	}
	var saved position
	if err := json.Unmarshal(entry.Value(), &saved); err != nil {
		return 0, fmt.Errorf("read position of feed %s in bucket %s: %w", p.feed, Bucket, err)
	}
	if saved.Epoch != epoch {
		return 0, nil
	}
	return saved.Position, nil
}

// Save saves a position.
func (p *Positions) Save(ctx context.Context, at int) error {
	return jetstream.Do(ctx, func(ctx context.Context) error { return p.save(ctx, at) })
}

func (p *Positions) save(ctx context.Context, at int) error {
	epoch, err := p.epoch(ctx)
	if err != nil {
		return err
	}
	bucket, err := p.bucket(ctx)
	if err != nil {
		return err
	}
	value, err := json.Marshal(position{Position: at, Epoch: epoch})
	if err != nil {
		return fmt.Errorf("encode position: %w", err)
	}
	if _, err := bucket.Put(ctx, p.feed, value); err != nil {
		return fmt.Errorf("save position of feed %s: %w", p.feed, err)
	}
	return nil
}

func (p *Positions) bucket(ctx context.Context) (natsjs.KeyValue, error) {
	bucket, err := p.js.KeyValue(ctx, Bucket)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		bucket, err = p.js.CreateOrUpdateKeyValue(ctx, natsjs.KeyValueConfig{
			Bucket:      Bucket,
			Description: "positions of the feeds of `make run`",
			Storage:     natsjs.FileStorage,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", Bucket, err)
	}
	return bucket, nil
}

func (p *Positions) epoch(ctx context.Context) (string, error) {
	stream, err := p.js.Stream(ctx, p.stream)
	if err != nil {
		return "", fmt.Errorf("look at stream %s: %w", p.stream, err)
	}
	return stream.CachedInfo().Created.UTC().Format("2006-01-02T15:04:05.999999999Z"), nil
}
