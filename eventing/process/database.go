package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"  //nolint:depguard // this is where functions and the database are joined
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // this is where functions and the database are joined

	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// otherConns is the number of connections of a process to the database in addition to those
// for batches: to end sessions that block them and hang, and for dead letters and checks.
const otherConns = 3

// migrateTimeout bounds one attempt to migrate. Another process may be migrating, and
// large tables take long; migrations that an attempt has finished stay applied.
const migrateTimeout = 10 * time.Minute

func newPool(ctx context.Context, c config) (*pgxpool.Pool, telemetry.Traffic, error) {
	settings, err := postgres.ParseConfig(c.DatabaseURL, checkTimeout)
	if err != nil {
		return nil, nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	settings.MaxConns = int32(c.Connections + otherConns)
	settings.MinConns = 0
	if settings.ConnConfig.RuntimeParams["application_name"] == "" {
		settings.ConnConfig.RuntimeParams["application_name"] = "tandem-function-" + c.Cluster
	}
	dial, traffic := telemetry.Counted(telemetry.Dial(settings.ConnConfig.DialFunc))
	settings.ConnConfig.DialFunc = pgconn.DialFunc(dial)
	// Connections are opened when needed, so there is none yet.
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), settings)
	if err != nil {
		return nil, nil, fmt.Errorf("set up connections to the database: %w", err)
	}
	return pool, traffic, nil
}

// prepareSchema checks that the database has every migration, and applies missing ones
// if TANDEM_MIGRATE is true.
func (cs *components) prepareSchema(ctx context.Context, c config) error {
	sets := migrationSets(c.functions)
	err := cs.checkSchema(ctx, sets)
	switch {
	case !errors.Is(err, schema.ErrMissing):
		return err
	case !c.Migrate:
		return fmt.Errorf("%w (with TANDEM_MIGRATE=true this process does, if DATABASE_URL's role may)", err)
	}
	attempt, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := schema.Migrate(attempt, c.DatabaseURL, sets...); err != nil {
		return err
	}
	return cs.checkSchema(ctx, sets)
}

// warnOfTables logs the tables of the functions' migrations to which effects cannot be
// written.
func (cs *components) warnOfTables(ctx context.Context, c config) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var names []string
	for _, set := range migrationSets(c.functions) {
		names = append(names, set.Name)
	}
	unfit, err := cs.writer.UnfitTables(ctx, names...)
	if err != nil {
		cs.log.LogAttrs(ctx, slog.LevelWarn, "could not check whether effects can be written to the tables of the migrations; events are processed: see err", slog.Any("err", err))
	}
	for _, err := range unfit {
		cs.log.LogAttrs(ctx, slog.LevelWarn, "effects cannot be written to a table of the migrations; events that write to it wait: see err", slog.Any("err", err))
	}
}

func (cs *components) checkSchema(ctx context.Context, sets []schema.MigrationSet) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return schema.Check(ctx, cs.pool, sets...)
}
