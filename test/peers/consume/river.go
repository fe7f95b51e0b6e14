package consume

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sync/errgroup"
)

const (
	// riverInsert is the maximum number of jobs that are inserted together.
	riverInsert = 500

	// riverWorkers is how many jobs a client fetches and processes; those without
	// a connection wait for one.
	riverWorkers = 500

	// riverOutputs is the queue of outputs, so that they do not wait behind a
	// backlog of flights.
	riverOutputs = "outputs"
)

// flightJob is a job for each event, unique by its source and id.
type flightJob struct{ departure }

// Kind implements [river.JobArgs].
func (flightJob) Kind() string { return "flight" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (flightJob) InsertOpts() river.InsertOpts {
	return river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

// outputJob is a job for each output.
type outputJob struct{ output }

// Kind implements [river.JobArgs].
func (outputJob) Kind() string { return "output" }

// InsertOpts implements river.JobArgsWithInsertOpts.
func (outputJob) InsertOpts() river.InsertOpts { return river.InsertOpts{Queue: riverOutputs} }

// flightWorker executes the effects, inserts the output's job and completes
// its own job in one transaction.
type flightWorker struct {
	river.WorkerDefaults[flightJob]
	pool *pgxpool.Pool
}

// Work implements [river.Worker].
func (w *flightWorker) Work(ctx context.Context, job *river.Job[flightJob]) error {
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		d := &job.Args.departure
		// The airport's row, which others wait for, is locked last.
		if _, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job); err != nil {
			return err
		}
		if d.late() {
			out, err := d.output()
			if err != nil {
				return err
			}
			if _, err := river.ClientFromContext[pgx.Tx](ctx).InsertTx(ctx, tx, outputJob{out}, nil); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, effectsSQL, d.args()...)
		return err
	})
}

// outputWorker publishes.
type outputWorker struct {
	river.WorkerDefaults[outputJob]
	js jetstream.JetStream
}

// Work implements [river.Worker].
func (w *outputWorker) Work(ctx context.Context, job *river.Job[outputJob]) error {
	_, err := w.js.PublishMsg(ctx, job.Args.message())
	return err
}

// riverConsumer inserts a job for each event, many at a time, and works on jobs.
func riverConsumer(ctx context.Context, c Config) error {
	pool, err := openPool(ctx, c, c.Concurrency)
	if err != nil {
		return err
	}
	nc, js, err := openNATS(c)
	if err != nil {
		return err
	}
	defer nc.Close()
	workers := river.NewWorkers()
	river.AddWorker(workers, &flightWorker{pool: pool})
	river.AddWorker(workers, &outputWorker{js: js})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		ID:                   c.Cluster,
		Queues:               map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: riverWorkers}, riverOutputs: {MaxWorkers: riverWorkers}},
		Workers:              workers,
		FetchCooldown:        2 * time.Millisecond,
		FetchPollInterval:    20 * time.Millisecond,
		JobTimeout:           10 * time.Second,
		RescueStuckJobsAfter: 15 * time.Second,
		Logger:               logger(),
	})
	if err != nil {
		return fmt.Errorf("set up River: %w", err)
	}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("start River: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	messages := make(chan jetstream.Msg, riverInsert)
	group.Go(func() error { return pull(ctx, js, c, messages) })
	group.Go(func() error { return riverInsertAll(ctx, client, messages) })
	return group.Wait()
}

// riverInsertAll inserts all messages that are waiting, and acknowledges them.
func riverInsertAll(ctx context.Context, client *river.Client[pgx.Tx], messages <-chan jetstream.Msg) error {
	for {
		var batch []jetstream.Msg
		select {
		case m := <-messages:
			batch = append(batch, m)
		case <-ctx.Done():
			return ctx.Err()
		}
		for more := true; more && len(batch) < riverInsert; {
			select {
			case m := <-messages:
				batch = append(batch, m)
			default:
				more = false
			}
		}
		jobs, err := riverJobs(batch)
		if err != nil {
			return err
		}
		_, err = client.InsertMany(ctx, jobs)
		if err != nil && ctx.Err() == nil {
			logger().LogAttrs(ctx, slog.LevelWarn, "could not insert jobs; the events will be redelivered", slog.Any("err", err))
		}
		for _, m := range batch {
			answer := m.Ack
			if err != nil {
				answer = func() error { return m.NakWithDelay(tryAgain) }
			}
			if err := answer(); err != nil {
				return fmt.Errorf("acknowledge: %w", err)
			}
		}
	}
}

// riverJobs returns a job for each message, and only one for duplicates: River
// recognises repeats of jobs in the table, but rejects a batch that contains
// duplicates.
func riverJobs(batch []jetstream.Msg) ([]river.InsertManyParams, error) {
	jobs := make([]river.InsertManyParams, 0, len(batch))
	seen := make(map[[2]string]bool, len(batch))
	for _, m := range batch {
		d, err := read(m.Headers().Get, m.Data())
		if err != nil {
			return nil, err
		}
		if identity := [2]string{d.Source, d.ID}; !seen[identity] {
			seen[identity] = true
			jobs = append(jobs, river.InsertManyParams{Args: flightJob{d}})
		}
	}
	return jobs, nil
}

// PrepareRiver creates its tables.
func PrepareRiver(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return fmt.Errorf("migrate River: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate River: %w", err)
	}
	return nil
}
