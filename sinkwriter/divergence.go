package sinkwriter

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/tandem-fn/tandem/functions"
)

const (
	winnersSQL = `select writer, cluster, version from tandem.writer where writer = any($1::bigint[])`

	divergenceSQL = `insert into tandem.divergence (function, version, source, id, lost_cluster, won_cluster, lost_digest, won_digest, wanted)
select $1, $2, d.source, d.id, $3, d.won_cluster, d.lost_digest, d.won_digest, d.wanted::json
from unnest($4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::text[]) as d (source, id, won_cluster, lost_digest, won_digest, wanted)
limit greatest(0, 1000 - (select count(*) from tandem.divergence where function = $1 and version = $2))
on conflict do nothing`

	// Sorted, because several writers of one cluster update the same rows.
	divergenceCountSQL = `insert into tandem.divergence_count as c (function, lost_version, won_version, lost_cluster, events)
select d.function, d.lost_version, d.won_version, $1, d.events
from unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) as d (function, lost_version, won_version, events)
on conflict (function, lost_version, won_version, lost_cluster) do update set events = c.events + excluded.events, last_at = now()`

	// maxWanted bounds the stored effects of a lost offer, in bytes.
	maxWanted = 64 << 10

	// recordInterval is the minimum time between two transactions that record
	// divergence.
	recordInterval = time.Second

	// maxDiverged bounds the number of events whose effects wait to be recorded (the table
	// keeps no more per function and version), and maxDivergedBytes bounds their size.
	maxDiverged, maxDivergedBytes = 1000, 8 << 20

	// maxWinners bounds the cached rows of tandem.writer.
	maxWinners = 4096
)

// difference is a lost offer whose digest differs from the winner's.
type difference struct {
	offer  *offer
	writer int64 // that won
	digest digest
}

// newDifference returns the difference of an offer from a row of key, writer and
// digest.
func newDifference(o *offer, row [][]byte) difference {
	d := difference{offer: o, writer: int64(binary.BigEndian.Uint64(row[1]))}
	copy(d.digest[:], row[2])
	return d
}

// winner is a row of tandem.writer.
type winner struct {
	cluster, version string
}

// divergences counts the lost offers that differ from the winner, and keeps some of them,
// until they are recorded together. So no offer waits for the recording, and not each of
// them is a write.
type divergences struct {
	mu      sync.Mutex
	winners map[int64]winner
	counts  map[versions]int64
	events  []diverged
	bytes   int  // of events
	busy    bool // a goroutine is recording, or is scheduled to
	closed  bool
	latest  time.Time // when it last recorded
	done    sync.WaitGroup
}

// versions are the versions of a function that computed the lost and the winning
// effects.
type versions struct{ function, lost, won string }

// diverged is a lost offer that was computed by the winner's version.
type diverged struct {
	function, version, source, id, wonCluster string
	lostDigest, wonDigest                     digest
	wanted                                    []byte
}

func (d *diverged) size() int { return len(d.wanted) + len(d.source) + len(d.id) }

// lost finishes offers that have lost. Those that differ from the winner are counted and
// recorded soon. The connection must be outside a transaction; if it is broken, the
// differences are only logged.
func (w *Writer) lost(ctx context.Context, s *session, lost []*offer, differences []difference) {
	for _, o := range lost {
		countLost(o)
	}
	different := map[*offer]Receipt{}
	if len(differences) > 0 {
		winners, err := w.winners(ctx, s, differences)
		if err != nil {
			w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not look up the winners of events with other effects; their divergence is not recorded: see err", slog.Int("events", len(differences)), slog.Any("err", err))
		} else {
			w.diverged(ctx, differences, winners)
		}
		for _, d := range differences {
			won, known := winners[d.writer]
			different[d.offer] = Receipt{Key: d.offer.key, Diverged: known && won.version == d.offer.version, Digest: d.digest}
		}
	}
	for _, o := range lost {
		receipt, differs := different[o]
		if !differs {
			receipt = Receipt{Key: o.key, Digest: o.digest}
		}
		o.finish(result{receipt: receipt})
	}
}

// winners returns the writers that won where a digest differs. It looks up those that are
// not cached: a row of tandem.writer never changes.
func (w *Writer) winners(ctx context.Context, s *session, differences []difference) (map[int64]winner, error) {
	d := &w.divergences
	found := map[int64]winner{}
	var ids []int64
	d.mu.Lock()
	for _, difference := range differences {
		if known, ok := d.winners[difference.writer]; ok {
			found[difference.writer] = known
		} else if !slices.Contains(ids, difference.writer) {
			ids = append(ids, difference.writer)
		}
	}
	d.mu.Unlock()
	if len(ids) == 0 {
		return found, nil
	}
	err := s.run(ctx, []step{{
		sql: winnersSQL, oids: []uint32{pgtype.Int8ArrayOID}, params: [][]byte{int8Array(ids)}, table: "tandem.writer",
		row: func(v [][]byte) {
			found[int64(binary.BigEndian.Uint64(v[0]))] = winner{cluster: string(v[1]), version: string(v[2])}
		},
	}})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.winners == nil || len(d.winners) >= maxWinners {
		d.winners = map[int64]winner{}
	}
	for _, id := range ids {
		if won, ok := found[id]; ok {
			d.winners[id] = won
		}
	}
	return found, err
}

// diverged counts and logs differences, and schedules their recording: immediately, or
// recordInterval after the last one.
func (w *Writer) diverged(ctx context.Context, differences []difference, winners map[int64]winner) {
	counts := map[versions]int64{}
	var events []diverged
	for _, d := range differences {
		o, won := d.offer, winners[d.writer]
		counts[versions{o.function, o.version, won.version}]++
		if won.version != o.version {
			o.counters.otherVersion.Add(1)
			continue
		}
		o.counters.diverged.Add(1)
		w.config.Logger.LogAttrs(ctx, slog.LevelError, "divergence: the function's effects differ from the winner's, although the version is the same: the function is not deterministic, or two events share a source and id",
			slog.String("lost_cluster", w.config.Cluster), slog.String("won_cluster", won.cluster), slog.String("function", o.function), slog.String("version", o.version),
			slog.String("event_source", o.event.Source()), slog.String("event_id", o.event.ID()))
		if len(events) < maxDiverged {
			events = append(events, diverged{
				o.function, o.version, o.event.Source(), o.event.ID(), won.cluster, o.digest, d.digest, wanted(o.effects),
			})
		}
	}
	d := &w.divergences
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(counts, events)
	if !d.busy && !d.closed {
		d.busy = true
		d.done.Go(w.recordDivergences)
	}
}

// add adds counts, and events up to the bounds. Callers hold mu.
func (d *divergences) add(counts map[versions]int64, events []diverged) {
	if d.counts == nil {
		d.counts = map[versions]int64{}
	}
	for v, n := range counts {
		d.counts[v] += n
	}
	for _, e := range events {
		if len(d.events) >= maxDiverged || d.bytes+e.size() > maxDivergedBytes {
			return
		}
		d.events = append(d.events, e)
		d.bytes += e.size()
	}
}

// recordDivergences records until nothing is left, or until the writer closes.
func (w *Writer) recordDivergences() {
	d := &w.divergences
	for {
		d.mu.Lock()
		if len(d.counts) == 0 || w.detaching.Err() != nil {
			d.busy = false
			d.mu.Unlock()
			return
		}
		pause := time.NewTimer(d.latest.Add(recordInterval).Sub(now()))
		d.mu.Unlock()
		select {
		case <-pause.C:
			w.recordOnce(w.ctx)
		case <-w.detaching.Done():
		}
		pause.Stop()
	}
}

// recordOnce records the counts and events in a transaction of its own. A failure is logged,
// and they are recorded next time.
func (w *Writer) recordOnce(ctx context.Context) {
	d := &w.divergences
	d.mu.Lock()
	counts, events := d.counts, d.events
	d.counts, d.events, d.bytes = nil, nil, 0
	d.mu.Unlock()
	if len(counts) == 0 {
		return
	}
	err := w.record(ctx, counts, events)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest = now()
	if err != nil { // after a lost connection they may be counted twice
		d.add(counts, events)
		w.config.Logger.LogAttrs(ctx, slog.LevelWarn, "could not record divergence; retrying: see err", slog.Int("events", len(events)), slog.Any("err", err))
	}
}

func (w *Writer) record(ctx context.Context, counts map[versions]int64, events []diverged) error {
	ctx, cancel := context.WithTimeout(ctx, w.config.CommitTimeout)
	defer cancel()
	s, err := w.acquire(ctx)
	if err != nil {
		return fmt.Errorf("record divergence: %w", err)
	}
	defer s.release()
	defer w.watch(s, s.claimTimeout/2)()
	steps := append([]step{{sql: beginSQL}, s.settings()}, w.countStep(counts))
	steps = append(append(steps, w.divergedSteps(events)...), step{sql: commitSQL})
	if err := s.run(ctx, steps); err != nil {
		s.rollback()
		return fmt.Errorf("record divergence: %w", err)
	}
	return nil
}

// countStep returns the statement that adds counts.
func (w *Writer) countStep(counts map[versions]int64) step {
	all := make([]versions, 0, len(counts))
	for v := range counts {
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b versions) int {
		return cmp.Or(strings.Compare(a.function, b.function), strings.Compare(a.lost, b.lost), strings.Compare(a.won, b.won))
	})
	n := len(all)
	numbers := appendArray(nil, pgtype.Int8OID, n, func(i int) ([]byte, bool) { return int8Param(counts[all[i]]), false })
	return step{
		sql: divergenceCountSQL, table: "tandem.divergence_count",
		oids: []uint32{pgtype.TextOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.Int8ArrayOID},
		params: [][]byte{
			[]byte(w.config.Cluster),
			textArray(n, func(i int) []byte { return []byte(all[i].function) }),
			textArray(n, func(i int) []byte { return []byte(all[i].lost) }),
			textArray(n, func(i int) []byte { return []byte(all[i].won) }),
			numbers,
		},
	}
}

// divergedSteps returns the statements that store events, one for each function and version.
func (w *Writer) divergedSteps(events []diverged) []step {
	order := func(a, b diverged) int {
		return cmp.Or(strings.Compare(a.function, b.function), strings.Compare(a.version, b.version))
	}
	slices.SortFunc(events, func(a, b diverged) int {
		return cmp.Or(order(a, b), strings.Compare(a.source, b.source), strings.Compare(a.id, b.id))
	})
	var steps []step
	for len(events) > 0 {
		n := 1
		for n < len(events) && order(events[0], events[n]) == 0 {
			n++
		}
		some := events[:n]
		events = events[n:]
		bytea := func(of func(i int) []byte) []byte {
			return appendArray(nil, pgtype.ByteaOID, n, func(i int) ([]byte, bool) { return of(i), false })
		}
		steps = append(steps, step{
			sql: divergenceSQL, table: "tandem.divergence",
			oids: []uint32{
				pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.TextArrayOID, pgtype.TextArrayOID, pgtype.TextArrayOID,
				pgtype.ByteaArrayOID, pgtype.ByteaArrayOID, pgtype.TextArrayOID,
			},
			params: [][]byte{
				[]byte(some[0].function), []byte(some[0].version), []byte(w.config.Cluster),
				textArray(n, func(i int) []byte { return []byte(some[i].source) }),
				textArray(n, func(i int) []byte { return []byte(some[i].id) }),
				textArray(n, func(i int) []byte { return []byte(some[i].wonCluster) }),
				bytea(func(i int) []byte { return some[i].lostDigest[:] }),
				bytea(func(i int) []byte { return some[i].wonDigest[:] }),
				textArray(n, func(i int) []byte { return some[i].wanted }),
			},
		})
	}
	return steps
}

// closeDivergences records the rest, within ctx.
func (w *Writer) closeDivergences(ctx context.Context) {
	d := &w.divergences
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.done.Wait() // for at most CommitTimeout
	w.recordOnce(ctx)
}

// textArray returns an array of n texts.
func textArray(n int, text func(i int) []byte) []byte {
	return appendArray(nil, pgtype.TextOID, n, func(i int) ([]byte, bool) { return text(i), false })
}

// wanted formats effects for people.
func wanted(fx functions.Effects) []byte {
	text, err := json.Marshal(fx)
	if err != nil || len(text) > maxWanted {
		text, _ = json.Marshal(map[string]int{"writes": len(fx.Writes), "outputs": len(fx.Outputs), "bytes": len(text)})
	}
	return text
}
