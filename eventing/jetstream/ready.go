package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// silence is how long a leader may not have heard of a replica that still counts
// as there. They speak every second.
const silence = 4 * time.Second

// ErrDuplicateWindow says that a stream recognises repeated events for too short a
// time. Somebody has to set another one.
var ErrDuplicateWindow = errors.New("the stream's duplicate window is too short")

// find gives the stream, which is made if it is missing.
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

// Ready reports why the stream could not store an event now: no connection, no
// stream, one that takes none or not enough servers to store it, or, for good,
// [ErrDuplicateWindow].
func (p *Publisher) Ready(ctx context.Context) error {
	info, err := p.find(ctx)
	if err != nil {
		return err
	}
	return canStore(info)
}

// canStore reports why a stream takes no events now, as far as it says so itself.
func canStore(info *natsjs.StreamInfo) error {
	cfg := info.Config
	full := cfg.Discard == natsjs.DiscardNew &&
		(cfg.MaxMsgs > 0 && info.State.Msgs >= uint64(cfg.MaxMsgs) || cfg.MaxBytes > 0 && info.State.Bytes >= uint64(cfg.MaxBytes))
	switch {
	case cfg.Mirror != nil:
		return fmt.Errorf("stream %s is a mirror of %s and takes no events: publish to that one", cfg.Name, cfg.Mirror.Name)
	case cfg.Sealed:
		return fmt.Errorf("stream %s is sealed and takes no events", cfg.Name)
	case full:
		return fmt.Errorf("stream %s is full and discards new events: raise its limits", cfg.Name)
	case info.Cluster == nil:
		return nil // one server alone
	case info.Cluster.Leader == "":
		return fmt.Errorf("stream %s has no leader", cfg.Name)
	}
	// A leader that lost the others leads on for some ten seconds, and stores
	// nothing.
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
