package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// originKey is the key in a consumer's metadata under which the origin of its stream's
// messages is stored, so that it is known while the origin is unreachable.
const originKey = "tandem-origin"

// maxMirrors bounds the chain of mirrors that is followed, because it may be circular.
const maxMirrors = 8

// origin is the stream in which messages were stored first. A mirror has the sequences
// of its origin, so the progress of a consumer is saved for the origin.
type origin struct {
	name  string
	epoch string // when it was created

	config natsjs.StreamConfig // zero if the origin is only remembered
}

// findOrigin follows mirrors to their origin. If the origin is unreachable, it returns
// the remembered one; the error means that there is none.
func (s *Stream) findOrigin(ctx context.Context, stream natsjs.Stream) (origin, error) {
	info := stream.CachedInfo()
	state := info.State
	js := s.conn.in(s.cfg.Domain)
	for range maxMirrors {
		if err := checkSettings(cmp.Or(info.Config.Name, s.cfg.String()), info.Config); err != nil {
			return origin{}, err
		}
		mirror := info.Config.Mirror
		if mirror == nil {
			if older(state, info.Created) {
				return origin{}, fmt.Errorf("mirror %s has messages of an earlier stream %s, which was deleted and recreated, and skips as many of the new one: delete the mirror and create it again", s.cfg, info.Config.Name)
			}
			return origin{name: info.Config.Name, epoch: info.Created.UTC().Format(time.RFC3339Nano), config: info.Config}, nil
		}
		if mirror.External != nil && mirror.External.APIPrefix != "" {
			js = s.conn.at(mirror.External.APIPrefix)
		}
		var err error
		if info, err = s.ask(ctx, js, mirror.Name); err != nil {
			if known, ok := s.remembered(ctx, stream); ok {
				return known, nil
			}
			return origin{}, fmt.Errorf("find stream %s, of which %s is a mirror: %w", mirror.Name, s.cfg, err)
		}
	}
	return origin{}, fmt.Errorf("stream %s is the end of a chain of mirrors: want at most %d", s.cfg, maxMirrors)
}

// older reports whether a mirror has messages from before its origin was created. Then
// the origin was deleted and recreated, and the mirror continues only after the new one
// has more messages than the old one had. Clocks within a cluster differ by less than
// the skew.
func older(mirror natsjs.StreamState, created time.Time) bool {
	const skew = 30 * time.Second
	return mirror.Msgs > 0 && mirror.FirstTime.Before(created.Add(-skew))
}

// alone returns an error if another stream with this origin is read for the same
// cluster and function: checkpoints are saved by origin, and two streams of one name in
// different domains would have messages with the same identity.
func (s *Stream) alone(o origin) error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	read := s.conn.read[s.consumer]
	if read == nil {
		read = map[string]string{}
		s.conn.read[s.consumer] = read
	}
	if other, ok := read[o.name]; ok && other != s.cfg.String() {
		return fmt.Errorf("streams %s and %s are both %s, or mirrors of a stream of that name: read one of them, or give separate streams different names", other, s.cfg, o.name)
	}
	read[o.name] = s.cfg.String()
	return nil
}

func (s *Stream) ask(ctx context.Context, js natsjs.JetStream, name string) (*natsjs.StreamInfo, error) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, because(ctx, err)
	}
	return stream.CachedInfo(), nil
}

// remembered looks up the origin in all consumers of the stream, this one's first.
func (s *Stream) remembered(ctx context.Context, stream natsjs.Stream) (origin, bool) {
	ctx, cancel := s.conn.api(ctx)
	defer cancel()
	own, err := stream.Consumer(ctx, s.consumer)
	if err == nil {
		if known, ok := recall(own.CachedInfo().Config.Metadata); ok {
			return known, true
		}
	}
	list := stream.ListConsumers(ctx)
	found, ok := origin{}, false
	for info := range list.Info() {
		if !ok {
			found, ok = recall(info.Config.Metadata)
		}
	}
	return found, ok
}

// remember returns a consumer's metadata with the origin in it.
func (o origin) remember(metadata map[string]string) map[string]string {
	with := maps.Clone(metadata)
	if with == nil {
		with = map[string]string{}
	}
	with[originKey] = o.name + "@" + o.epoch
	return with
}

// recall reads the metadata of [origin.remember].
func recall(metadata map[string]string) (origin, bool) {
	value := metadata[originKey]
	i := strings.LastIndexByte(value, '@')
	if i < 0 {
		return origin{}, false
	}
	return origin{name: value[:i], epoch: value[i+1:]}, true
}
