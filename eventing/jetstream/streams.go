package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// StreamConfig is the configuration of a stream that is created if it is missing. An
// existing stream is not changed.
type StreamConfig struct {
	// Name is the stream's name, for example EVENTS. Required.
	Name string

	// Domain is the JetStream domain of the stream, for streams beyond a leaf node.
	// Defaults to that of the connected server.
	Domain string

	// Replicas is the number of servers that store the stream. From 1 to 5; production
	// needs 3. Defaults to 1.
	Replicas int

	// DuplicateWindow is how long the stream deduplicates an event. Defaults to 2 min.
	DuplicateWindow time.Duration

	// LeastWindow is the shortest duplicate window that an existing stream may have for
	// a [Publisher]. With a shorter one it returns [ErrDuplicateWindow]. Defaults to 0,
	// which accepts any.
	LeastWindow time.Duration
}

// ParseStream parses NAME or NAME@DOMAIN. The functions that accept a StreamConfig
// validate it.
func ParseStream(text string) StreamConfig {
	name, domain, _ := strings.Cut(strings.TrimSpace(text), "@")
	return StreamConfig{Name: name, Domain: domain}
}

func (c StreamConfig) withDefaults() StreamConfig {
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.DuplicateWindow = cmp.Or(c.DuplicateWindow, 2*time.Minute)
	return c
}

func (c StreamConfig) validate() error {
	switch {
	case c.Name == "" || strings.ContainsAny(c.Name, notInNames):
		return fmt.Errorf("stream name %q: want letters, digits, '_' and '-'", c.Name)
	case strings.ContainsAny(c.Domain, notInNames):
		return fmt.Errorf("domain %q of stream %s: want letters, digits, '_' and '-'", c.Domain, c.Name)
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("replicas %d: want 1 to 5", c.Replicas)
	case c.DuplicateWindow < 0 || c.LeastWindow < 0:
		return fmt.Errorf("duplicate window %s: want more than 0", min(c.DuplicateWindow, c.LeastWindow))
	case c.DuplicateWindow < c.LeastWindow:
		return fmt.Errorf("duplicate window %s: want at least %s", c.DuplicateWindow, c.LeastWindow)
	}
	return nil
}

// String returns the stream in the form of [ParseStream].
func (c StreamConfig) String() string {
	if c.Domain == "" {
		return c.Name
	}
	return c.Name + "@" + c.Domain
}

// notInNames are the characters that NATS does not allow in names, and the separator of
// [ParseStream].
const notInNames = " \t\r\n.*>/\\@"

// prefix returns the prefix of the subjects of a stream's events: its name in lower
// case.
func (c StreamConfig) prefix() string { return strings.ToLower(c.Name) }

// EnsureStream creates the stream if it is missing: for the subjects under its name in
// lower case (EVENTS has events.>), in files, keeping messages until a limit is set. A
// stream with a domain is not created, because it may have to be a mirror, which
// accepts no events of its own. Several processes may call it at once. The error is why
// the stream does not exist.
func (c *Conn) EnsureStream(ctx context.Context, cfg StreamConfig) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("create stream: %w", err)
	}
	_, err := repeat(ctx, func(ctx context.Context) (natsjs.Stream, error) { return c.ensureStream(ctx, cfg) })
	return err
}

func (c *Conn) ensureStream(ctx context.Context, cfg StreamConfig) (natsjs.Stream, error) {
	stream, err := c.findStream(ctx, cfg)
	if !errors.Is(err, natsjs.ErrStreamNotFound) || cfg.Domain != "" {
		return stream, err
	}
	ctx, cancel := c.api(ctx)
	defer cancel()
	stream, err = c.in(cfg.Domain).CreateStream(ctx, natsjs.StreamConfig{
		Name:        cfg.Name,
		Description: "made by Tandem",
		Subjects:    []string{cfg.prefix() + ".>"},
		Retention:   natsjs.LimitsPolicy,
		Storage:     natsjs.FileStorage,
		Replicas:    cfg.Replicas,
		Duplicates:  cfg.DuplicateWindow,
		AllowDirect: true, // any of its servers answers a source that reads messages again
	})
	switch {
	case errors.Is(err, natsjs.ErrStreamNameAlreadyInUse): // another process was faster
		return c.findStream(ctx, cfg)
	case err != nil:
		return nil, fmt.Errorf("create stream %s at %s: %w", cfg, c.where, because(ctx, err))
	}
	c.logger.LogAttrs(ctx, slog.LevelInfo, "created the missing stream",
		slog.String("stream", cfg.Name), slog.Int("replicas", cfg.Replicas))
	return stream, nil
}

// findStream looks up the stream. If it is missing the error wraps
// [natsjs.ErrStreamNotFound].
func (c *Conn) findStream(ctx context.Context, cfg StreamConfig) (natsjs.Stream, error) {
	ctx, cancel := c.api(ctx)
	defer cancel()
	if err := c.Ready(); err != nil {
		return nil, err
	}
	stream, err := c.in(cfg.Domain).Stream(ctx, cfg.Name)
	switch {
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return nil, fmt.Errorf("there is no stream %s at %s: create it, or check its name: %w", cfg, c.where, err)
	case err != nil:
		return nil, fmt.Errorf("find stream %s at %s: %w", cfg, c.where, because(ctx, err))
	}
	return stream, nil
}
