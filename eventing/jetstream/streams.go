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

// StreamConfig says how a stream is made if it is missing. One that is there is
// left as it is.
type StreamConfig struct {
	// Name is the stream's name, as EVENTS. Required.
	Name string

	// Domain is the JetStream domain that the stream is in, for streams beyond a
	// leaf node. Defaults to that of the server that is connected to.
	Domain string

	// Replicas is on how many servers the stream is stored. From 1 to 5;
	// production needs 3. Defaults to 1.
	Replicas int

	// DuplicateWindow is for how long the stream recognises a repeated event.
	// Defaults to 2 min.
	DuplicateWindow time.Duration

	// LeastWindow is the shortest duplicate window that a stream which is there
	// may have for a [Publisher], which else gives [ErrDuplicateWindow]. 0, the
	// default, takes any.
	LeastWindow time.Duration
}

// ParseStream reads how people write a stream, NAME or NAME@DOMAIN. What is wrong
// with it is said by whoever takes the StreamConfig.
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

// String gives the stream as [ParseStream] reads it.
func (c StreamConfig) String() string {
	if c.Domain == "" {
		return c.Name
	}
	return c.Name + "@" + c.Domain
}

// notInNames are what NATS does not allow in names, and what [ParseStream] means
// something by.
const notInNames = " \t\r\n.*>/\\@"

// prefix is what the subjects of a stream's events begin with: its name in lower
// case.
func (c StreamConfig) prefix() string { return strings.ToLower(c.Name) }

// EnsureStream makes the stream if it is missing: for the subjects under its
// name in lower case (EVENTS takes events.>), in files, keeping messages until
// somebody sets a limit. One with a domain is not made, as it may have to be a
// mirror, which takes no events of its own. Several processes may do so at once.
// The error says why the stream is not there.
func (c *Conn) EnsureStream(ctx context.Context, cfg StreamConfig) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("make stream: %w", err)
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
	case errors.Is(err, natsjs.ErrStreamNameAlreadyInUse): // somebody was quicker
		return c.findStream(ctx, cfg)
	case err != nil:
		return nil, fmt.Errorf("make stream %s at %s: %w", cfg, c.where, because(ctx, err))
	}
	c.logger.LogAttrs(ctx, slog.LevelInfo, "created the missing stream",
		slog.String("stream", cfg.Name), slog.Int("replicas", cfg.Replicas))
	return stream, nil
}

// findStream asks for the stream. If it is missing the error has
// [natsjs.ErrStreamNotFound] in its chain.
func (c *Conn) findStream(ctx context.Context, cfg StreamConfig) (natsjs.Stream, error) {
	ctx, cancel := c.api(ctx)
	defer cancel()
	if err := c.Ready(); err != nil {
		return nil, err
	}
	stream, err := c.in(cfg.Domain).Stream(ctx, cfg.Name)
	switch {
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return nil, fmt.Errorf("there is no stream %s at %s: make it, or look at its name: %w", cfg, c.where, err)
	case err != nil:
		return nil, fmt.Errorf("find stream %s at %s: %w", cfg, c.where, because(ctx, err))
	}
	return stream, nil
}
