package sinkwriter

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// tripSQL and probeSQL measure the way to the server: an empty round trip, and one with
	// probeBytes.
	tripSQL    = `select`
	probeSQL   = `select pg_catalog.octet_length($1)`
	probeBytes = 64 << 10

	// probes is how often the rate is measured at once. The best one counts, as a busy machine
	// is slow for a moment.
	probes = 3

	// probeAgain is after what time a rate that limits batches is measured again, or any rate
	// if a batch took long.
	probeAgain = 10 * time.Second

	// maxTrip bounds the round trip that is allowed for: a process that is stopped while it
	// measures must not hold its claims for as long as it was stopped.
	maxTrip = 2 * time.Second

	// leastBatchBytes is the smallest bound of a batch on a slow link.
	leastBatchBytes = 16 << 10
)

// distance is what a writer knows of the way to its server.
//
// # Design
//
// Between claim and effects the server waits for a round trip, and for what the link takes to
// carry the effects. Others must not take that for a process that hangs. So the claim timeout of a
// transaction is the configured one and a round trip, measured on its own connection; and a batch
// is as large as the link carries within half of the configured one and a round trip.
//
// The rate is measured by sending bytes for nothing, since how long a batch takes says little
// about the link: the server executes it, and waits for locks. That is done on a new connection, and
// again when batches are limited or take long.
type distance struct {
	mu     sync.Mutex
	trip   time.Duration // the latest that was measured
	rate   float64       // bytes a second; 0 before it is measured
	probed time.Time
	again  bool // a batch took long
}

// batchBytes returns the bound of a batch.
func (d *distance) batchBytes(most int, claimTimeout time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rate == 0 {
		return min(most, probeBytes)
	}
	return max(min(most, int(d.rate*(claimTimeout/2+d.trip).Seconds())), min(most, leastBatchBytes))
}

// due reports whether the rate is to be measured, or measured again.
func (d *distance) due(most int, claimTimeout time.Duration) bool {
	limited := d.batchBytes(most, claimTimeout) < most
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.probed.IsZero() || (limited || d.again) && now().Sub(d.probed) > probeAgain
}

// tookLong notes that a batch took long.
func (d *distance) tookLong() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.again = true
}

// measured stores what was measured.
func (d *distance) measured(trip time.Duration, rate float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trip, d.rate, d.probed, d.again = trip, rate, now(), false
}

// measure measures the way to the server over a connection.
func (w *Writer) measure(ctx context.Context, s *session) error {
	timed := func(st step) (time.Duration, error) {
		begin := now()
		err := s.run(ctx, []step{st})
		return now().Sub(begin), err
	}
	trip, err := timed(step{sql: tripSQL})
	if err != nil {
		return err
	}
	probe := step{sql: probeSQL, oids: []uint32{pgtype.ByteaOID}, params: [][]byte{make([]byte, probeBytes)}}
	var best time.Duration
	for i := 0; i < probes; i++ {
		took, err := timed(probe)
		if err != nil {
			return err
		}
		trip = min(trip, took)
		if took -= trip; i == 0 || took < best {
			best = took
		}
		if most := w.config.BatchBytes; rateOf(best)*(w.config.ClaimTimeout/2).Seconds() > float64(most) {
			break // the link limits nothing
		}
	}
	s.state.trip = min(trip, maxTrip)
	w.distance.measured(s.state.trip, rateOf(best))
	return nil
}

// rateOf returns the rate of a link that carries a probe in some time.
func rateOf(d time.Duration) float64 {
	return probeBytes / max(d, time.Microsecond).Seconds()
}
