package jetstream

import (
	"context"
	"fmt"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TakesType reports whether the stream accepts more events of a type, given that it
// accepts those of other types. It does not if the type's subject is not one of the
// stream's, or has reached the stream's limit for each subject while the stream discards
// new messages. The error means that the stream does not answer.
func (p *Publisher) TakesType(ctx context.Context, eventType string) (bool, error) {
	subject := Subject(p.cfg.prefix(), eventType)
	stream, err := p.conn.findStream(ctx, p.cfg)
	if err != nil {
		return false, err
	}
	cfg := stream.CachedInfo().Config
	if cfg.Mirror == nil && !anyMatches(cfg.Subjects, subject) {
		return false, nil
	}
	if cfg.Discard != natsjs.DiscardNew || !cfg.DiscardNewPerSubject || cfg.MaxMsgsPerSubject <= 0 {
		return true, nil
	}
	ctx, cancel := p.conn.api(ctx)
	defer cancel()
	info, err := stream.Info(ctx, natsjs.WithSubjectFilter(subject))
	if err != nil {
		return false, fmt.Errorf("count messages of %s in stream %s: %w", subject, p.cfg, because(ctx, err))
	}
	return info.State.Subjects[subject] < uint64(cfg.MaxMsgsPerSubject), nil
}

// anyMatches reports whether a subject matches one of the patterns, which may have
// wildcards.
func anyMatches(patterns []string, subject string) bool {
	for _, pattern := range patterns {
		if matches(strings.Split(pattern, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return false
}

func matches(pattern, subject []string) bool {
	for i, token := range pattern {
		switch {
		case token == ">":
			return len(subject) > i
		case i >= len(subject) || token != "*" && token != subject[i]:
			return false
		}
	}
	return len(pattern) == len(subject)
}
