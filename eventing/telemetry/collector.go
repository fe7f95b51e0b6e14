package telemetry

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// garbagePercent is how much garbage there may be beside what lives before it is
	// collected. What lives is so little that with Go's 100 the collector runs all the
	// time: an eighth of all processor time.
	garbagePercent = 400

	// limitShare is how much of a container's memory the heap may come to before
	// garbage is collected more eagerly than that, in percent.
	limitShare = 75

	limitFile = "/sys/fs/cgroup/memory.max"
)

// TuneCollector has garbage collected less often than is Go's default, but never so late
// that the container's memory limit is reached by it. GOGC and GOMEMLIMIT, if they are
// set, count instead. It is for a process as a whole.
func TuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	LimitHeap(math.MaxInt64)
}

// LimitHeap has garbage collected more eagerly when the heap comes to this many bytes, or
// near the container's memory limit. GOMEMLIMIT, if it is set, counts instead. It is for a
// process as a whole.
func LimitHeap(bytes int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if text, err := os.ReadFile(limitFile); err == nil {
		bytes = min(bytes, heapLimit(string(text)))
	}
	debug.SetMemoryLimit(bytes)
}

// heapLimit gives the limit for the heap from that for the container, as the system
// writes it.
func heapLimit(container string) int64 {
	bytes, err := strconv.ParseInt(strings.TrimSpace(container), 10, 64)
	if err != nil || bytes <= 0 { // "max" is none
		return math.MaxInt64
	}
	return bytes / 100 * limitShare
}
