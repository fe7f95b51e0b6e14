//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// gaps measures how long nothing is committed.
type gaps struct {
	mu      sync.Mutex
	last    time.Time
	max     time.Duration
	started bool
	told    bool
}

// watchGaps reads the end of the ledger twenty times a second, which limits the
// precision of a gap.
func (s *servers) watchGaps(t *testing.T) *gaps {
	t.Helper()

	g := &gaps{}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var before int64
		for ctx.Err() == nil {
			// This sum changes with every commit, and is cheap.
			var n int64
			if err := s.pool.QueryRow(ctx, "select coalesce(sum(flights), 0)::bigint from airports").Scan(&n); err == nil {
				if g.seen(n != before) {
					t.Logf("nothing is committed for %s: what the database does:\n%s", maxGap, s.activity(ctx))
				}
				before = n
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	return g
}

// seen records an observation. It returns true once in each gap that is too long.
func (g *gaps) seen(changed bool) (tooLong bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if changed || g.last.IsZero() {
		if g.started {
			g.max = max(g.max, time.Since(g.last))
		}
		g.last, g.told = time.Now(), false
	}
	if !g.started {
		return false
	}
	g.max = max(g.max, time.Since(g.last))
	tooLong = !g.told && time.Since(g.last) > maxGap
	g.told = g.told || tooLong
	return tooLong
}

// activity returns the activity of the clusters' sessions.
func (s *servers) activity(ctx context.Context) string {
	rows, err := s.pool.Query(ctx, `select format('%s %s %s %s/%s since %s, transaction since %s, blocked by %s: %s', pid, client_addr, state, wait_event_type, wait_event,
		clock_timestamp() - state_change, clock_timestamp() - xact_start, pg_blocking_pids(pid), left(query, 80))
		from pg_stat_activity where usename = 'tandem_writer' order by xact_start nulls last`)
	if err != nil {
		return err.Error()
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err.Error()
	}
	streams := make([]string, 0, 2)
	if js, err := natsjs.New(s.NC); err == nil {
		if stream, err := js.Stream(ctx, "EVENTS"); err == nil {
			streams = append(streams, fmt.Sprintf("stream at %d", stream.CachedInfo().State.LastSeq))
			for info := range stream.ListConsumers(ctx).Info() {
				streams = append(streams, fmt.Sprintf("%s: pending %d, unacknowledged %d", info.Name, info.NumPending, info.NumAckPending))
			}
		}
	}
	return strings.Join(append(streams, lines...), "\n")
}

// start discards earlier observations.
func (g *gaps) start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started, g.max, g.last = true, 0, time.Now()
}

func (g *gaps) longest() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.max
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()

	to := t.TempDir() + "/config"
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
