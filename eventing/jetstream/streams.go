package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// StreamConfig says how a stream is made if it is missing. One that is there is
// left as it is.
type StreamConfig struct {
	// Name is the stream's name, as EVENTS. Required.
	Name string

	// Replicas is on how many servers the stream is stored. From 1 to 5;
	// production needs 3. Defaults to 1.
	Replicas int

	// DuplicateWindow is for how long the stream recognises a repeated event.
	// Defaults to 2 min.
	DuplicateWindow time.Duration
}

func (c StreamConfig) withDefaults() StreamConfig {
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.DuplicateWindow == 0 {
		c.DuplicateWindow = 2 * time.Minute
	}
	return c
}

func (c StreamConfig) validate() error {
	switch {
	case c.Name == "" || strings.ContainsAny(c.Name, " \t\r\n.*>/\\"):
		return fmt.Errorf("stream name %q: want letters, digits, '_' and '-'", c.Name)
	case c.Replicas < 1 || c.Replicas > 5:
		return fmt.Errorf("replicas %d: want 1 to 5", c.Replicas)
	case c.DuplicateWindow < 0:
		return fmt.Errorf("duplicate window %s: want more than 0", c.DuplicateWindow)
	}
	return nil
}

// prefix is what the subjects of a stream's events begin with: its name in lower
// case.
func (c StreamConfig) prefix() string { return strings.ToLower(c.Name) }

// EnsureStream makes the stream if it is missing: for the subjects under its
// name in lower case (EVENTS takes events.>), in files, keeping messages until
// somebody sets a limit. Several processes may do so at once. The error says why
// the stream is not there.
func (c *Conn) EnsureStream(ctx context.Context, cfg StreamConfig) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	_, err := c.ensureStream(ctx, cfg)
	return err
}

func (c *Conn) ensureStream(ctx context.Context, cfg StreamConfig) (natsjs.Stream, error) {
	ctx, cancel := c.api(ctx)
	defer cancel()
	if err := c.Ready(); err != nil {
		return nil, err
	}
	stream, err := c.js.Stream(ctx, cfg.Name)
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		stream, err = c.js.CreateStream(ctx, natsjs.StreamConfig{
			Name:        cfg.Name,
			Description: "made by Tandem",
			Subjects:    []string{cfg.prefix() + ".>"},
			Retention:   natsjs.LimitsPolicy,
			Storage:     natsjs.FileStorage,
			Replicas:    cfg.Replicas,
			Duplicates:  cfg.DuplicateWindow,
		})
		switch {
		case errors.Is(err, natsjs.ErrStreamNameAlreadyInUse): // somebody was quicker
			stream, err = c.js.Stream(ctx, cfg.Name)
		case err == nil:
			c.logger.LogAttrs(ctx, slog.LevelInfo, "stream was missing and is made",
				slog.String("stream", cfg.Name), slog.Int("replicas", cfg.Replicas))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find or make stream %s at %s: %w", cfg.Name, c.where, because(ctx, err))
	}
	return stream, nil
}
