package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// silence is the time without a sign of a replica after which its leader's report
// counts it as lost. They communicate every second.
const silence = 4 * time.Second

// ErrDuplicateWindow means that a stream's duplicate window is too short. An operator
// has to change it.
var ErrDuplicateWindow = errors.New("the stream's duplicate window is too short")

// find returns the stream, which is created if it is missing.
func (p *Publisher) find(ctx context.Context) (*natsjs.StreamInfo, error) {
	stream, err := p.conn.ensureStream(ctx, p.cfg)
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	p.limits.learn(info)
	if window := info.Config.Duplicates; window < p.cfg.LeastWindow && info.Config.Mirror == nil {
		return nil, fmt.Errorf("stream %s: %w: it is %s, want at least %s: nats stream edit %s --dupe-window=2m",
			p.cfg, ErrDuplicateWindow, window, p.cfg.LeastWindow, p.cfg.Name)
	}
	return info, nil
}

// Ready returns why the stream cannot store an event now: no connection, no stream, a
// stream that accepts none, or too few servers. [ErrDuplicateWindow] is permanent.
func (p *Publisher) Ready(ctx context.Context) error {
	info, err := p.find(ctx)
	if err != nil {
		return err
	}
	return canStore(info)
}

// canStore returns why a stream accepts no events now, as far as its info shows.
func canStore(info *natsjs.StreamInfo) error {
	cfg := info.Config
	full := cfg.Discard == natsjs.DiscardNew &&
		(cfg.MaxMsgs > 0 && info.State.Msgs >= uint64(cfg.MaxMsgs) || cfg.MaxBytes > 0 && info.State.Bytes >= uint64(cfg.MaxBytes))
	switch {
	case cfg.Mirror != nil:
		return fmt.Errorf("stream %s is a mirror of %s and accepts no events: publish to its origin", cfg.Name, cfg.Mirror.Name)
	case cfg.Sealed:
		return fmt.Errorf("stream %s is sealed and accepts no events: publish to another stream", cfg.Name)
	case full:
		return fmt.Errorf("stream %s is full and discards new events: raise its limits", cfg.Name)
	case info.Cluster == nil:
		return nil // a single server
	case info.Cluster.Leader == "":
		return fmt.Errorf("stream %s has no leader", cfg.Name)
	}
	// A leader that has lost the other replicas remains leader for about ten seconds,
	// and stores nothing.
	there := 1
	for _, peer := range info.Cluster.Replicas {
		if !peer.Offline && peer.Active < silence && (peer.Current || peer.Active > 0) {
			there++
		}
	}
	if all := len(info.Cluster.Replicas) + 1; there <= all/2 {
		return fmt.Errorf("stream %s has %d of its %d replicas, too few to store anything", cfg.Name, there, all)
	}
	return nil
}
