package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/tandem-fn/tandem/hack/expected"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// result holds the differences between the outcome and the truth.
type result struct {
	Lost            int64 `json:"lost"`             // events without a row
	Doubled         int64 `json:"doubled"`          // additions to totals beyond the rows
	OutputsLost     int64 `json:"outputs_lost"`     // missing ones
	OutputsDoubled  int64 `json:"outputs_doubled"`  // distinct ones beyond the expected ones
	OutputsRepeated int64 `json:"outputs_repeated"` // with the same source and id; consumers deduplicate them

	differences []string
}

// wrong reports whether anything differs from the truth.
func (r result) wrong() bool { return len(r.differences) > 0 }

func (r result) String() string {
	text := fmt.Sprintf("%d lost, %d doubled, %d outputs lost, %d doubled", r.Lost, r.Doubled, r.OutputsLost, r.OutputsDoubled)
	if len(r.differences) > 3 {
		return text + ": " + strings.Join(r.differences[:3], "; ") + " …"
	}
	return text + ": " + strings.Join(r.differences, "; ")
}

// outcome compares tables and outputs with the expected ones.
func (t *trial) outcome(ctx context.Context) (result, error) {
	databaseURL, err := t.d.URL(trialDatabase)
	if err != nil {
		return result{}, err
	}
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return result{}, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer pool.Close()
	o, err := expected.Read(ctx, pool, t.d.NC)
	if err != nil {
		return result{}, err
	}
	o.Own = nil // the flights that are repeated from another source are part of the truth
	stream, err := t.d.JS.Stream(ctx, consume.OutputStream)
	if err != nil {
		return result{}, fmt.Errorf("look at stream %s: %w", consume.OutputStream, err)
	}
	r := result{differences: o.Differences(t.workload.want)}
	rows, totals := expected.Total(o.Rows), expected.Total(o.Airports)
	r.Lost = int64(t.workload.distinct) - rows.Flights
	r.Doubled = totals.Flights - rows.Flights
	var outputs int64
	for airport, want := range t.workload.want {
		got := o.Outputs[airport]
		outputs += got
		r.OutputsLost += max(0, want.Delayed-got)
		r.OutputsDoubled += max(0, got-want.Delayed)
	}
	r.OutputsRepeated = int64(stream.CachedInfo().State.Msgs) - outputs
	return r, nil
}

// each reads all messages of a stream.
func (d *deployment) each(ctx context.Context, name string, do func(natsjs.Msg, *natsjs.MsgMetadata) error) error {
	stream, err := d.JS.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", name, err)
	}
	last := stream.CachedInfo().State.LastSeq
	if stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	consumer, err := stream.OrderedConsumer(ctx, natsjs.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("read stream %s: %w", name, err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read stream %s: %w", name, err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(natsjs.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read stream %s: %w", name, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read stream %s: %w", name, err)
		}
		if err := do(m, meta); err != nil || meta.Sequence.Stream >= last {
			return err
		}
	}
}
