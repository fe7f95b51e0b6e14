package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // this is where eventing and the database are joined

	"github.com/tandem-fn/tandem/eventing"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// database is what the source needs of PostgreSQL.
type database struct {
	progress eventing.ProgressSaver
	relay    eventing.Relay
	close    func()
}

// openDatabase sets up connections, which are made when they are needed: the
// database may be away. The error says that the URL is not usable.
func openDatabase(ctx context.Context, url, cluster, function string) (database, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		// Not the parser's error: it repeats the URL, and not always without
		// the password.
		return database{}, errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	cfg.MaxConns = 2 // one for progress, one for the relay
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = fmt.Sprintf("tandem-source-%s-%s", cluster, function)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return database{}, fmt.Errorf("set up connections to the database: %w", err)
	}
	return database{
		progress: saver{sinkwriter.NewProgress(pool, cluster)},
		relay:    sinkwriter.NewOutbox(pool),
		close:    pool.Close,
	}, nil
}

// saver saves progress whatever was saved before.
type saver struct{ progress *sinkwriter.Progress }

func (s saver) Save(ctx context.Context, function, stream, epoch string, floor, head uint64) error {
	last, _, err := s.progress.Load(ctx, function, stream)
	if err != nil {
		return err
	}
	_, _, err = s.progress.Save(ctx, function, stream, sinkwriter.NewProgressRow{Epoch: epoch, Floor: floor, Head: head, Hedge: "0", Adopt: true}, last)
	return err
}
