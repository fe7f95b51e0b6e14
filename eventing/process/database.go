package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5/pgconn"  //nolint:depguard // this is where functions and the database are joined
	"github.com/jackc/pgx/v5/pgxpool" //nolint:depguard // this is where functions and the database are joined

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/telemetry"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
	"github.com/tandem-fn/tandem/sinkwriter/deadletter"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

// maxConns bounds the connections of a process to the database: two for batches, the
// others for dead letters and checks.
const maxConns = 4

// migrateTimeout bounds one attempt to migrate. Another process may be migrating, and
// large tables take long; migrations that an attempt has finished stay applied.
const migrateTimeout = 10 * time.Minute

func newPool(ctx context.Context, c config) (*pgxpool.Pool, telemetry.Traffic, error) {
	settings, err := pgxpool.ParseConfig(c.DatabaseURL)
	if err != nil {
		// Not the parser's error: it repeats the URL, and not always without
		// the password.
		return nil, nil, errors.New("DATABASE_URL: want postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	settings.MaxConns = maxConns
	settings.MinConns = 0
	if settings.ConnConfig.ConnectTimeout == 0 {
		settings.ConnConfig.ConnectTimeout = checkTimeout
	}
	if settings.ConnConfig.RuntimeParams["application_name"] == "" {
		settings.ConnConfig.RuntimeParams["application_name"] = "tandem-function-" + c.Cluster
	}
	dial, traffic := telemetry.Counted(telemetry.Dial(settings.ConnConfig.DialFunc))
	settings.ConnConfig.DialFunc = pgconn.DialFunc(dial)
	// Connections are made when they are needed, so none is yet.
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

func (cs *components) checkSchema(ctx context.Context, sets []schema.MigrationSet) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return schema.Check(ctx, cs.pool, sets...)
}

// committer is a [serve.Committer] that commits with sinkwriter.
type committer struct{ writer *sinkwriter.Writer }

// Commit implements [serve.Committer].
func (c committer) Commit(ctx context.Context, f functions.Function, e event.Event, fx functions.Effects) (serve.Receipt, error) {
	receipt, err := c.writer.Commit(ctx, sinkwriter.Offer{Function: f.Name, Version: f.Version, Event: e, Effects: fx})
	outcome := outcomeOf(receipt, err)
	return outcome.Receipt, outcome.Err
}

// CommitAll implements [serve.Committer].
func (c committer) CommitAll(ctx context.Context, offers []serve.Offer) []serve.Outcome {
	all := make([]sinkwriter.Offer, len(offers))
	for i, o := range offers {
		all[i] = sinkwriter.Offer{Function: o.Function.Name, Version: o.Function.Version, Event: o.Event, Effects: o.Effects}
	}
	outcomes := make([]serve.Outcome, len(offers))
	for i, o := range c.writer.CommitAll(ctx, all) {
		outcomes[i] = outcomeOf(o.Receipt, o.Err)
	}
	return outcomes
}

// outcomeOf converts an outcome of sinkwriter into one of serve.
func outcomeOf(receipt sinkwriter.Receipt, err error) serve.Outcome {
	if err != nil {
		var known *sinkwriter.Error
		if errors.As(err, &known) && (known.Fault == sinkwriter.FaultFunction || known.Fault == sinkwriter.FaultOrder) {
			err = &serve.CountedError{Err: err}
		}
		return serve.Outcome{Err: err}
	}
	return serve.Outcome{Receipt: serve.Receipt{Won: receipt.Won, Key: receipt.Key.String()}}
}

// deadLetters is a [serve.DeadLetters] that saves with sinkwriter.
type deadLetters struct{ store *deadletter.Store }

// Save implements [serve.DeadLetters].
func (d deadLetters) Save(ctx context.Context, letter serve.DeadLetter) error {
	return d.store.Save(ctx, deadletter.Letter(letter))
}
