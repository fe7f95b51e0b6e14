package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/sethvargo/go-envconfig"
	"github.com/tandem-fn/tandem/eventing/telemetry"

	"github.com/tandem-fn/tandem/hack/chat/push"
)

// settings are the environment variables of a websocket server.
type settings struct {
	Cluster   string     `env:"TANDEM_CLUSTER, required"`
	NATSURL   string     `env:"NATS_URL, required"`
	IngestURL string     `env:"TANDEM_INGEST_URL, required"`
	Sides     string     `env:"TANDEM_CHAT_SIDES, required"` // JSON
	Address   string     `env:"LISTEN_ADDRESS, required"`
	LogLevel  slog.Level `env:"LOG_LEVEL, default=info"`
}

// servePush runs the websocket server of one cluster until ctx ends.
func servePush(ctx context.Context) error {
	var c settings
	if err := telemetry.ReadEnvironment(ctx, envconfig.OsLookuper(), &c); err != nil {
		return err
	}
	cfg := push.Config{
		Cluster: c.Cluster, IngestURL: c.IngestURL,
		Logger: slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel})).With(slog.String("cluster", c.Cluster)),
	}
	if err := json.Unmarshal([]byte(c.Sides), &cfg.Sides); err != nil {
		return fmt.Errorf("TANDEM_CHAT_SIDES: want JSON like [{\"name\":\"east\",\"url\":\"http://127.0.0.1:7418\"}]: %w", err)
	}
	s, err := push.New(ctx, cfg)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(c.NATSURL, nats.Name("tandem-chat-"+c.Cluster), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(250*time.Millisecond))
	if err != nil {
		return fmt.Errorf("NATS_URL: %w", err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		return err
	}
	go s.Follow(ctx, js, outputStream)

	server := &http.Server{
		Addr: c.Address, Handler: s,
		// For requests; websockets have timeouts of their own.
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
		BaseContext:    func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", c.Address, err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(s.Close(ctx), server.Shutdown(ctx))
}
