package consume

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"
)

// dbosVersion is the version of the application, set so that a new process recovers
// the workflows of an old one.
const dbosVersion = "1"

func dbosContext(ctx context.Context, pool *pgxpool.Pool, executor string) (dbos.Context, error) {
	dc, err := dbos.NewContext(ctx, dbos.Config{
		AppName:            "peers",
		SystemDBPool:       pool,
		ExecutorID:         executor,
		ApplicationVersion: dbosVersion,
		Logger:             logger(),
	})
	if err != nil {
		return nil, fmt.Errorf("set up DBOS: %w", err)
	}
	return dc, nil
}

// dbosQueue is the queue's name.
const dbosQueue = "flights"

// dbosConsumer runs a workflow for each event, whose id is the event's source and id:
// a transaction with the effects, and a step that publishes. If queued is true, the
// cluster that reads the event puts the workflow into a queue in the database, from
// which both clusters take it.
func dbosConsumer(ctx context.Context, c Config, queued bool) error {
	pool, err := openPool(ctx, c, c.Concurrency)
	if err != nil {
		return err
	}
	nc, js, err := openNATS(c)
	if err != nil {
		return err
	}
	defer nc.Close()
	dc, err := dbosContext(ctx, pool, c.Cluster)
	if err != nil {
		return err
	}
	source, err := dbos.NewDataSource(dc, pool)
	if err != nil {
		return fmt.Errorf("set up DBOS: %w", err)
	}
	flight := dbosWorkflow(source, js)
	dbos.RegisterWorkflow(dc, flight, dbos.WithWorkflowName("flight"))
	if err := dbos.Launch(dc); err != nil {
		return fmt.Errorf("launch DBOS: %w", err)
	}
	defer func() { _ = dbos.Shutdown(dc, time.Second) }() // it recovers unfinished workflows
	if !queued {
		return dbosRead(ctx, dc, c, js, flight)
	}
	queue, err := dbos.RegisterQueue(dc, dbosQueue, dbos.WithWorkerConcurrency(dbosAhead*c.Concurrency), dbos.WithQueueBasePollingInterval(pollInterval))
	if err != nil {
		return fmt.Errorf("register queue %s: %w", dbosQueue, err)
	}
	return work(ctx, js, c, func(_ context.Context, d departure) error {
		_, err := dbos.RunWorkflow(dc, flight, d, dbos.WithWorkflowID(d.workflow()), dbos.WithQueue(queue))
		return err
	})
}

// dbosAhead is how many workflows are taken from the queue at a time, as a multiple
// of the connections: enough that they do not idle until the next poll.
const dbosAhead = 4

// workflow returns the id of the event's workflow.
func (d *departure) workflow() string { return d.Source + "/" + d.ID }

func dbosWorkflow(source *dbos.DataSource, js jetstream.JetStream) dbos.Workflow[departure, string] {
	return func(ctx dbos.Context, d departure) (string, error) {
		_, err := dbos.RunAsTransaction(ctx, source, func(ctx context.Context, tx dbos.Tx) (string, error) {
			_, err := tx.Exec(ctx, effectsSQL, d.args()...)
			return "", err
		})
		if err != nil || !d.late() {
			return "", err
		}
		return dbos.RunAsStep(ctx, func(ctx context.Context) (string, error) {
			out, err := d.output()
			if err != nil {
				return "", err
			}
			_, err = js.PublishMsg(ctx, out.message())
			return "", err
		}, dbos.WithStepMaxRetries(10))
	}
}

// dbosRead starts workflows. An event is acknowledged once its workflow is recorded,
// because DBOS then completes it.
func dbosRead(ctx context.Context, dc dbos.Context, c Config, js jetstream.JetStream, flight dbos.Workflow[departure, string]) error {
	done := make(chan struct{}, c.Concurrency)
	return work(ctx, js, c, func(ctx context.Context, d departure) error {
		select {
		case done <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		handle, err := dbos.RunWorkflow(dc, flight, d, dbos.WithWorkflowID(d.workflow()))
		if err != nil || !runsHere(handle) {
			<-done
			return err
		}
		go func() {
			defer func() { <-done }()
			if _, err := handle.GetResult(); err != nil && ctx.Err() == nil {
				logger().LogAttrs(ctx, slog.LevelWarn, "workflow failed", slog.String("event_id", d.ID), slog.Any("err", err))
			}
		}()
		return nil
	})
}

// runsHere reports whether this call started the workflow, and not an earlier call or
// the other cluster. Only the handle's type distinguishes them; asking the database,
// as GetResult of the other kind does, would cost a query for each repeat, and up to
// a second.
func runsHere(handle dbos.WorkflowHandle[string]) bool {
	return !strings.HasPrefix(reflect.TypeOf(handle).Elem().Name(), "workflowPollingHandle")
}

// PrepareDBOS creates its tables.
func PrepareDBOS(ctx context.Context, pool *pgxpool.Pool) error {
	dc, err := dbosContext(ctx, pool, "prepare")
	if err != nil {
		return err
	}
	if err := dbos.Launch(dc); err != nil {
		return fmt.Errorf("launch DBOS: %w", err)
	}
	if err := dbos.Shutdown(dc, time.Second); err != nil {
		return fmt.Errorf("shut down DBOS: %w", err)
	}
	return nil
}
