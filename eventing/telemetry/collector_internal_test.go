package telemetry

import (
	"math"
	"testing"
)

func TestTheHeapStaysBelowTheContainersLimit(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]int64{
		"max\n": math.MaxInt64, "": math.MaxInt64, "0": math.MaxInt64, "134217728\n": 100663275,
	} {
		if got := heapLimit(text); got != want {
			t.Errorf("heapLimit(%q) = %d, want %d", text, got, want)
		}
	}
}
