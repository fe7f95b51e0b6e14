package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"  //nolint:depguard // the tool opens the connection; sinkwriter has the statements
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // the tool opens the connection; sinkwriter has the statements

	"github.com/tandem-fn/tandem/eventing/jetstream"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

const (
	connectTimeout = 10 * time.Second
	maxConns       = 4
)

var (
	errNoDatabase = errors.New("no database: set --database-url or DATABASE_URL, as postgres://USER:PASSWORD@HOST:5432/NAME")
	errNoNATS     = errors.New("no NATS servers: set --nats-url or NATS_URL, as nats://HOST:4222")
)

// database returns the database's URL.
func (t *tool) database() (string, error) {
	url := cmp.Or(t.databaseURL, t.env("DATABASE_URL"))
	if url == "" {
		return "", errNoDatabase
	}
	if _, err := postgres.ParseConfig(url, connectTimeout); err != nil {
		return "", fmt.Errorf("database URL: %w", err)
	}
	return url, nil
}

// databasePool is the type of connections that commands pass to the packages of
// sinkwriter.
type databasePool = pgxpool.Pool

// openDatabase returns connections to the database, which are opened when needed.
func (t *tool) openDatabase(ctx context.Context) (*databasePool, error) {
	url, err := t.database()
	if err != nil {
		return nil, err
	}
	settings, err := postgres.ParseConfig(url, connectTimeout)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	settings.MaxConns = maxConns
	if settings.ConnConfig.RuntimeParams["application_name"] == "" {
		settings.ConnConfig.RuntimeParams["application_name"] = "tandem"
	}
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return pool, nil
}

// openNATS returns a connection to the NATS servers that is established.
func (t *tool) openNATS(ctx context.Context) (*jetstream.Conn, error) {
	url := cmp.Or(t.natsURL, t.env("NATS_URL"))
	if url == "" {
		return nil, errNoNATS
	}
	conn, err := jetstream.Connect(ctx, url, jetstream.Config{Name: "tandem"})
	if err != nil {
		return nil, err
	}
	if err := conn.Wait(ctx, connectTimeout); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("%w: check --nats-url or NATS_URL", err)
	}
	return conn, nil
}

// explain adds the next step to an error of the database.
func explain(err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case "42501":
		return fmt.Errorf("%w: use the role that runs tandem migrate", err)
	case "42P01", "3F000":
		return fmt.Errorf("%w: run tandem migrate first, or check the database URL", err)
	}
	return err
}
