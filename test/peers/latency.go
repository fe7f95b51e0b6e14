package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/tandem-fn/tandem/test/peers/consume"
)

// warmUp is how long events are published that do not count.
const warmUp = 3 * time.Second

// latency is the result of a latency trial, in milliseconds.
type latency struct {
	Rate      int     `json:"rate"`
	CommitP50 float64 `json:"commit_p50_ms"`
	CommitP99 float64 `json:"commit_p99_ms"`
	OutputP50 float64 `json:"output_p50_ms"`
	OutputP99 float64 `json:"output_p99_ms"`
	Samples   int     `json:"samples"`
}

// latency publishes events at a rate, and compares the time at which the stream
// stored each with the times at which its row was committed and its output stored.
func (d *deployment) latency(ctx context.Context, p peer, concurrency int, load workload, perSecond int) (latency, error) {
	t, err := d.begin(ctx, p, concurrency, load)
	if err != nil {
		return latency{}, err
	}
	defer t.end()
	if err := t.checkpoint(ctx); err != nil {
		return latency{}, err
	}
	for _, cluster := range []string{east, west} {
		if err := t.start(ctx, cluster); err != nil {
			return latency{}, err
		}
	}
	listens := func(s state) bool { return s.consumers == len(t.parts) }
	if err := t.await(ctx, listens); err != nil {
		return latency{}, err
	}
	if err := publish(ctx, d.JS, load.messages, perSecond); err != nil {
		return latency{}, err
	}
	if err := t.await(ctx, t.through); err != nil {
		return latency{}, err
	}
	if err := t.exact(ctx); err != nil {
		return latency{}, err
	}
	return t.latencies(ctx, perSecond)
}

func (t *trial) latencies(ctx context.Context, perSecond int) (latency, error) {
	stored := map[string]time.Time{}
	var begin time.Time
	err := t.d.each(ctx, consume.InputStream, func(m natsjs.Msg, meta *natsjs.MsgMetadata) error {
		if begin.IsZero() {
			begin = meta.Timestamp
		}
		id := m.Headers().Get("ce-id")
		if _, again := stored[id]; !again && meta.Timestamp.Sub(begin) > warmUp {
			stored[id] = meta.Timestamp
		}
		return nil
	})
	if err != nil {
		return latency{}, err
	}
	var commits, outputs []float64
	add := func(list *[]float64, id string, at time.Time) {
		if since, counts := stored[id]; counts {
			*list = append(*list, float64(at.Sub(since))/float64(time.Millisecond))
		}
	}
	rows, err := t.admin.Query(ctx, "select flight_id, pg_xact_commit_timestamp(xmin) from flights")
	if err != nil {
		return latency{}, fmt.Errorf("read the commit times: %w", err)
	}
	var id string
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { add(&commits, id, at); return nil }); err != nil {
		return latency{}, fmt.Errorf("read the commit times: %w", err)
	}
	err = t.d.each(ctx, consume.OutputStream, func(m natsjs.Msg, meta *natsjs.MsgMetadata) error {
		var d struct {
			FlightID string `json:"flight_id"`
		}
		if err := json.Unmarshal(m.Data(), &d); err != nil {
			return fmt.Errorf("read output: %w", err)
		}
		add(&outputs, d.FlightID, meta.Timestamp)
		return nil
	})
	if err != nil {
		return latency{}, err
	}
	return latency{
		Rate: perSecond, Samples: len(commits),
		CommitP50: quantile(commits, 0.5), CommitP99: quantile(commits, 0.99),
		OutputP50: quantile(outputs, 0.5), OutputP99: quantile(outputs, 0.99),
	}, nil
}

// quantile returns the value that the part q of the list does not exceed; 0 for an
// empty list.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(len(list)-1, int(math.Ceil(q*float64(len(list))))-1)]
}
