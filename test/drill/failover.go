package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster/link"
	"github.com/tandem-fn/tandem/test/deployment"
)

const (
	// The witness queries the primary at this interval, and considers it lost
	// after this many consecutive queries without an answer.
	witnessInterval = 500 * time.Millisecond
	witnessPatience = 4
)

// failover kills the primary with commits that the standby has not received.
func failover(ctx context.Context, d *drilling) error {
	r := d.deployment.Replicated
	if err := r.StopReplication(ctx); err != nil {
		return err
	}
	d.note("replication to the standby stops; %s later the primary is killed", d.options.lag)
	deployment.Wait(ctx, d.options.lag)
	committed, err := d.committed(ctx)
	if err != nil {
		return err
	}
	r.LosePrimary()
	d.note("the primary is killed")
	return promote(ctx, d, committed)
}

// losePrimary removes everything in the primary's data centre.
func losePrimary(ctx context.Context, d *drilling) error {
	committed, err := d.committed(ctx)
	if err != nil {
		return err
	}
	for _, cluster := range deployment.Clusters() {
		d.deployment.Link(cluster + "-postgres").Set(link.Condition{Silent: true})
	}
	d.deployment.Lose(lost)
	d.deployment.Replicated.LosePrimary()
	d.deployment.Process("nats-1").Destroy()
	if d.options.witness {
		if err := awaitWitness(ctx, d); err != nil {
			return err
		}
	} else {
		d.note("there is no witness: an operator notices, and promotes the standby after %s", d.options.reaction)
		deployment.Wait(ctx, d.options.reaction)
	}
	return promote(ctx, d, committed)
}

// awaitWitness returns when the witness, in a third site, considers the primary lost.
func awaitWitness(ctx context.Context, d *drilling) error {
	silent := 0
	for silent < witnessPatience {
		asking, cancel := context.WithTimeout(ctx, witnessInterval)
		conn, err := pgx.Connect(asking, d.deployment.Replicated.Primary().URL())
		if err == nil {
			silent = 0
			_ = conn.Close(asking)
		} else {
			silent++
		}
		cancel()
		if !deployment.Wait(ctx, witnessInterval) {
			return context.Cause(ctx)
		}
	}
	d.note("the primary has not answered %d queries of the witness, which promotes the standby", witnessPatience)
	return nil
}

// promote promotes the standby, and reports the commits that it lacks.
func promote(ctx context.Context, d *drilling, committed int64) error {
	if err := d.deployment.Replicated.Promote(ctx); err != nil {
		return err
	}
	d.note("the standby is the primary now")
	left, err := d.committed(ctx)
	if err != nil {
		return err
	}
	if left < committed {
		d.result.Forgotten = committed - left
		d.note("it lacks at least %d events that had been committed and acknowledged to the stream", committed-left)
	}
	return nil
}

// switchOver shuts the primary down and promotes the standby.
func switchOver(ctx context.Context, d *drilling) error {
	r := d.deployment.Replicated
	committed, err := d.committed(ctx)
	if err != nil {
		return err
	}
	r.Primary().Stop(ctx)
	d.note("the primary has shut down: the standby has received all its commits")
	return promote(ctx, d, committed)
}
