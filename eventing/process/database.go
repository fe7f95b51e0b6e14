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
)

// maxConns bounds the connections of an instance to the database: two for
// batches, the others for dead letters and checks.
const maxConns = 4

// migrateTimeout bounds one try to migrate. Another instance may be at it, and
// large tables take their time; what a try has done stays done.
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

// look reports why the database is not fit, after having migrated it if that is
// wanted.
func (p *parts) look(ctx context.Context, c config) error {
	sets := migrationSets(c.picked)
	err := p.check(ctx, sets)
	switch {
	case !errors.Is(err, sinkwriter.ErrSchema):
		return err
	case !c.Migrate:
		return fmt.Errorf("%w (with TANDEM_MIGRATE=true this process does, if DATABASE_URL's role may)", err)
	}
	try, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if err := sinkwriter.Migrate(try, c.DatabaseURL, sets...); err != nil {
		return err
	}
	return p.check(ctx, sets)
}

func (p *parts) check(ctx context.Context, sets []sinkwriter.MigrationSet) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return sinkwriter.CheckSchema(ctx, p.pool, sets...)
}

// committer joins serve and sinkwriter.
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

// outcomeOf says in serve's words what sinkwriter says.
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

// deadLetters joins serve and sinkwriter.
type deadLetters struct{ kept *sinkwriter.DeadLetters }

// Save implements [serve.DeadLetters].
func (d deadLetters) Save(ctx context.Context, letter serve.DeadLetter) error {
	return d.kept.Save(ctx, sinkwriter.DeadLetter(letter))
}
