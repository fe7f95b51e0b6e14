package sinkwriter

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// tripSQL and probeSQL measure the link to the server: tripSQL is an empty round trip,
	// probeSQL carries probeBytes.
	tripSQL    = `select`
	probeSQL   = `select pg_catalog.octet_length($1)`
	probeBytes = 64 << 10

	// probes is how many times in a row the rate is measured. The best result counts, because
	// a busy machine has slow moments.
	probes = 3

	// probeAgain is the interval after which a rate that limits batches is measured again, or
	// any rate if a batch took long.
	probeAgain = 10 * time.Second

	// maxTrip bounds the round trip in the claim timeout: a process that was paused during
	// the measurement must not hold its claims for as long as it was paused.
	maxTrip = 2 * time.Second

	// leastBatchBytes is the lower bound of a batch's size on a slow link.
	leastBatchBytes = 16 << 10
)

// distance is what a writer knows of the link to its server.
//
// # Design
//
// Between the claim and the effects, the server waits for a round trip, plus the time in which
// the link transfers the effects. Other writers must not mistake that for a process that hangs.
// So a transaction's claim timeout is the configured one plus the round trip, which is measured
// on its own connection. And a batch is at most as large as the link carries within half of the
// configured claim timeout plus a round trip.
//
// The rate is measured by sending bytes that are discarded. The duration of a batch tells
// little about the link, because the server executes it and waits for locks. The measurement
// runs on a new connection, and again when batches are limited or take long.
type distance struct {
	mu     sync.Mutex
	trip   time.Duration // of the latest measurement
	took   time.Duration // likewise, of a round trip with a probe; 0 before the first measurement
	probed time.Time
	again  bool // a batch took long
}

// batchBytes returns the maximum size of a batch.
func (d *distance) batchBytes(most int, claimTimeout time.Duration) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.took == 0 {
		return min(most, probeBytes)
	}
	carried := rateOf(d.trip, d.took) * (claimTimeout/2 + d.trip).Seconds()
	return max(int(min(float64(most), carried)), min(most, leastBatchBytes))
}

// due reports whether the rate has to be measured, or measured again.
func (d *distance) due(most int, claimTimeout time.Duration) bool {
	limited := d.batchBytes(most, claimTimeout) < most
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.probed.IsZero() || (limited || d.again) && now().Sub(d.probed) > probeAgain
}

// tookLong records that a batch took long.
func (d *distance) tookLong() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.again = true
}

// measured stores a measurement: the duration of a round trip, and of one with a probe. Of several
// within probeAgain the best counts, of each of the two. A busy machine prolongs some; and a
// connection that is opened while batches are on their way measures the queue that they form,
// which larger batches would prolong.
func (d *distance) measured(trip, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.again = false
	if at := now(); d.took == 0 || at.Sub(d.probed) > probeAgain {
		d.trip, d.took, d.probed = trip, took, at
		return
	}
	d.trip, d.took = min(d.trip, trip), min(d.took, took)
}

// measure measures the link to the server over the session's connection.
func (w *Writer) measure(ctx context.Context, s *session) error {
	timed := func(st step) (time.Duration, error) {
		begin := now()
		err := s.run(ctx, []step{st})
		return now().Sub(begin), err
	}
	empty := step{sql: tripSQL}
	probe := step{sql: probeSQL, oids: []uint32{pgtype.ByteaOID}, params: [][]byte{make([]byte, probeBytes)}}
	trip, best := maxTrip, time.Duration(0)
	for i := 0; i < probes; i++ {
		again, err := timed(empty)
		if err != nil {
			return err
		}
		took, err := timed(probe)
		if err != nil {
			return err
		}
		if trip = min(trip, again, took); i == 0 || took < best {
			best = took
		}
		// One round trip that took long would hide the time of the transfer, so two are compared.
		if most := w.config.BatchBytes; i > 0 && rateOf(trip, best)*(w.config.ClaimTimeout/2).Seconds() > float64(most) {
			break // the link is no limit
		}
	}
	s.state.trip = trip
	w.distance.measured(trip, best)
	return nil
}

// rateOf returns the rate of a link on which a round trip takes trip, and one with a probe took, in
// bytes per second.
func rateOf(trip, took time.Duration) float64 {
	return probeBytes / max(took-trip, time.Microsecond).Seconds()
}
