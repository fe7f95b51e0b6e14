package sinkwriter

import (
	"testing"
	"time"
)

func TestAMeasurementBesideBatchesDoesNotEnlargeThem(t *testing.T) {
	t.Parallel()

	const most, claimTimeout = 8 << 20, 200 * time.Millisecond
	var d distance
	d.measured(10*time.Millisecond, 42768*time.Microsecond) // 2 MB a second
	want := d.batchBytes(most, claimTimeout)
	if want != 220_000 {
		t.Errorf("a batch has %d bytes, want 220,000", want)
	}
	d.measured(900*time.Millisecond, 901*time.Millisecond) // behind a queue of batches
	if got := d.batchBytes(most, claimTimeout); got != want {
		t.Errorf("a batch has %d bytes after a measurement beside others, want %d", got, want)
	}
	d.probed = d.probed.Add(-2 * probeAgain) // the link may have changed by now
	d.measured(100*time.Millisecond, 165536*time.Microsecond)
	if got, want := d.batchBytes(most, claimTimeout), 200_000; got != want {
		t.Errorf("a batch has %d bytes after a later measurement, want %d", got, want)
	}
}
